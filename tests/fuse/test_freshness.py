"""What the kernel is told to forget, and what happens while it does not answer."""

import threading
import time
from collections.abc import Callable, Iterator

import pyfuse3
import pytest

from potofs import open_journal
from potofs.backends.base import Notice
from potofs.fuse.freshness import Freshness
from potofs.fuse.inodes import Inodes
from potofs.tree.attributes import virtual_inode
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree

PATIENCE = 10.0

#: What a change of a user's conversations makes of what is shown.
OF_USER = (Kind.USER, Kind.DIALOGS, Kind.ARCHIVED)

#: A directory's number, and a name in it; None: its attributes.
Told = tuple[int, bytes | None]


class Kernel:
    """What is told to a kernel, which may be held up."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        #: Set unless it is held up.
        self.answers = threading.Event()
        self.answers.set()
        self.is_asked = threading.Event()

    def forget_attributes(self, inode: int, attr_only: bool) -> None:
        assert attr_only
        self._forget((inode, None))

    def forget_entry(self, inode: int, name: bytes) -> None:
        self._forget((inode, name))

    def _forget(self, what: Told) -> None:
        self.is_asked.set()
        assert self.answers.wait(PATIENCE)
        self.told.append(what)
        # As one says that knows nothing of it.
        raise FileNotFoundError

    def hold_up(self, freshness: Freshness) -> None:
        """Returns once it has been told something that it does not answer."""
        self.answers.clear()
        self.is_asked.clear()
        freshness.note(Notice("the first"))
        assert self.is_asked.wait(PATIENCE)

    def go_on(self, until: Told) -> list[Told]:
        """Answers, and returns what it was told up to this."""
        self.answers.set()
        deadline = time.monotonic() + PATIENCE
        while until not in self.told:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.001)
        return self.told


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(pyfuse3, "invalidate_inode", kernel.forget_attributes)
    monkeypatch.setattr(pyfuse3, "invalidate_entry", kernel.forget_entry)
    return kernel


@pytest.fixture
def inodes() -> Inodes:
    return Inodes()


@pytest.fixture
def freshness(kernel: Kernel, inodes: Inodes) -> Iterator[Freshness]:
    with open_journal("memory:") as journal:
        freshness = Freshness(Tree(journal), inodes)
        freshness.open()
        yield freshness
        kernel.answers.set()
        freshness.close()


def of(kind: Kind, user: str, name: bytes | None = None) -> Told:
    return virtual_inode(Node(kind, user)), name


def test_a_notice_is_about_the_user_s_directories_and_the_names_that_are_gone(
    kernel: Kernel, freshness: Freshness
) -> None:
    freshness.note(Notice("a/b", is_new=True, archives_gone=("50%",), set_asides_gone=("x",)))
    assert kernel.go_on(of(Kind.REJECTED, "a/b", b"x.yaml")) == [
        (virtual_inode(Node(Kind.USERS)), None),
        *(of(kind, "a/b") for kind in OF_USER),
        of(Kind.ARCHIVED, "a/b", b"50%25.yaml"),
        of(Kind.REJECTED, "a/b", b"x.yaml"),
    ]


def test_what_changes_often_while_the_kernel_is_held_up_is_told_once(kernel: Kernel, freshness: Freshness) -> None:
    kernel.hold_up(freshness)
    for _ in range(100):
        freshness.note(Notice("mia"))
        freshness.note(Notice("max"))
    told = kernel.go_on(of(Kind.ARCHIVED, "max"))
    assert told == [of(kind, user) for user in ("the first", "mia", "max") for kind in OF_USER]


@pytest.mark.parametrize(
    "tell",
    [
        lambda freshness: freshness.note(None),
        lambda freshness: [freshness.note(Notice(f"user {number}")) for number in range(5000)],
    ],
    ids=["unknown", "very much"],
)
def test_if_anything_or_very_much_has_changed_the_kernel_forgets_all_that_it_knows(
    kernel: Kernel, freshness: Freshness, inodes: Inodes, tell: Callable[[Freshness], object]
) -> None:
    known = [
        Node(Kind.USERS),
        Node(Kind.USER, "mia"),
        Node(Kind.ARCHIVED, "mia"),
        Node(Kind.CURRENT, "mia"),
        Node(Kind.METADATA, "mia"),
        Node(Kind.ARCHIVE, "mia", "refund"),
        Node(Kind.REJECTED_FILE, "mia", "x"),
    ]
    for number, node in enumerate(known, 100):
        inodes.remember(virtual_inode(node) if node.kind.is_directory else number, node)
    kernel.hold_up(freshness)
    tell(freshness)
    told = kernel.go_on(of(Kind.REJECTED, "mia", b"x.yaml"))
    # Not those of which it remembers nothing anyway: current.yaml and metadata.yaml.
    assert told[len(OF_USER) :] == [
        (virtual_inode(Node(Kind.ROOT)), None),
        (virtual_inode(Node(Kind.USERS)), None),
        of(Kind.USER, "mia"),
        of(Kind.ARCHIVED, "mia"),
        of(Kind.ARCHIVED, "mia", b"refund.yaml"),
        of(Kind.REJECTED, "mia", b"x.yaml"),
    ]


def test_once_it_is_closed_nothing_is_told_and_no_thread_is_left(kernel: Kernel, freshness: Freshness) -> None:
    before = threading.active_count()
    kernel.hold_up(freshness)
    for number in range(100):
        freshness.note(Notice(f"user {number}"))
    kernel.answers.set()
    freshness.close()
    told = len(kernel.told)
    freshness.note(Notice("mia"))
    freshness.close()
    assert (threading.active_count(), len(kernel.told)) == (before, told)
