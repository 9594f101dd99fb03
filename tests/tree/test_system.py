"""Files that are made when somebody looks: the same for everybody for a moment, and their times change as they do."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from potofs import DialogueJournal
from potofs.errors import NotFound
from potofs.journal.models import CleanupOptions
from potofs.tree.made import Made
from potofs.tree.nodes import Kind, Node
from potofs.tree.system import Figures
from potofs.tree.tree import Tree
from tests.mounts import wait_until


class Clock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Door:
    """A lock that counts who reaches it, and then has to wait or not."""

    def __init__(self) -> None:
        self.reached, self._lock = threading.Semaphore(0), threading.Lock()

    def __enter__(self) -> None:
        self.reached.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_whoever_asks_for_the_size_and_then_opens_it_gets_what_it_was_the_size_of() -> None:
    clock, numbers = Clock(), itertools.count()
    made = Made(lambda: b"%d" % next(numbers), lambda: 1, clock)
    assert made.look().data == b"0"
    clock.now += 0.9
    assert made.look(opens=True).data == b"0"
    # Opened, it is asked for its size once more.
    clock.now += 0.9
    assert made.look().data == b"0"
    clock.now += 0.2
    assert made.look().data == b"1"


def test_however_many_look_it_grows_no_older_than_that() -> None:
    clock, numbers = Clock(), itertools.count()
    made = Made(lambda: b"%d" % next(numbers), lambda: 1, clock)
    for _ in range(100):
        before = made.look(opens=True).data
        clock.now += 0.5
    assert int(before) == 24


def test_its_time_changes_only_with_its_contents() -> None:
    clock, times, text = Clock(), itertools.count(), [b"one"]
    made = Made(lambda: text[0], lambda: next(times), clock)
    assert made.look() == (b"one", 0)
    clock.now += 5
    assert made.look() == (b"one", 0)
    clock.now += 5
    text[0] = b"two"
    assert made.look() == (b"two", 1)


def test_an_error_is_not_remembered() -> None:
    tries = itertools.count()

    def make() -> bytes:
        if not next(tries):
            raise NotFound("x")
        return b"well"

    made = Made(make)
    with pytest.raises(NotFound):
        made.look()
    assert made.look().data == b"well"


def test_whoever_waited_for_what_failed_is_told_so_and_does_not_try_one_after_the_other() -> None:
    tries, failing = itertools.count(1), threading.Event()

    def make() -> bytes:
        number = next(tries)
        failing.wait(10)
        raise NotFound(f"try {number}")

    made = Made(make)

    def told() -> str:
        with pytest.raises(NotFound) as error:
            made.look()
        return str(error.value)

    made._guard = guard = Door()  # type: ignore[assignment]
    with ThreadPoolExecutor(5) as readers:
        answers = [readers.submit(told) for _ in range(5)]
        try:
            for _ in answers:
                assert guard.reached.acquire(timeout=10)
        finally:
            failing.set()
        assert {answer.result(timeout=10) for answer in answers} == {"try 1"}
    # Who comes later is not told of it.
    with pytest.raises(NotFound, match="try 2"):
        made.look()


def test_metrics_are_of_now_and_the_backend_is_asked_once_for_many_looks(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, get_stats = itertools.count(1), journal.get_stats
    monkeypatch.setattr(journal, "get_stats", lambda: (next(asked), get_stats())[1])
    seen = list[Figures]()
    numbers = itertools.count()

    def text(figures: Figures) -> bytes:
        seen.append(figures)
        return b"%d" % next(numbers)

    tree = Tree(journal)
    tree.system.metrics = text
    texts = set[bytes]()

    def look() -> bool:
        with tree.open(Node(Kind.METRICS)) as reader:
            texts.add(reader.read_all())
        return len(texts) == 3

    wait_until(look, "they are made anew")
    # Three within half a second, more than a second after the first only if the machine stands still.
    assert next(asked) <= 3
    assert all(figures.stats is not None for figures in seen)


def test_the_log_of_clean_ups_grows_while_it_is_read_and_has_the_time_of_the_last(journal: DialogueJournal) -> None:
    tree, log = Tree(journal), Node(Kind.CLEANUP_LOG)
    assert tree.attributes(log).size == 0
    with tree.open(log) as reader:
        assert reader.read(0, 100) == b""
        journal.cleanup(CleanupOptions())
        line = reader.read_all()
        assert line.endswith(b"}\n")
        before = tree.attributes(log)
        assert before.size == len(line)
        assert Tree(journal).attributes(log).mtime_ns == before.mtime_ns
        journal.cleanup(CleanupOptions())
        assert reader.read_all().startswith(line)
        assert reader.stat().size == tree.attributes(log).size > before.size


def test_a_tree_that_nobody_serves_has_no_metrics(journal: DialogueJournal) -> None:
    with pytest.raises(NotFound):
        Tree(journal).lookup(Node(Kind.SYSTEM), "metrics.prom")


def test_a_listing_shows_what_a_lookup_does_but_for_what_takes_time(journal: DialogueJournal) -> None:
    for archive in ("one", "two"):
        journal.backend.put_archive("mia", archive, b"role: user\n", 1)
    journal.backend.put_current("mia", b"role: user\n", 1)
    journal.backend.set_aside("mia", b"x")
    tree = Tree(journal)
    for parent in (
        Node(Kind.ROOT),
        Node(Kind.USERS),
        Node(Kind.USER, "mia"),
        Node(Kind.DIALOGS, "mia"),
        Node(Kind.ARCHIVED, "mia"),
        Node(Kind.REJECTED, "mia"),
    ):
        names = [*tree.names(parent), "metadata.yaml"]
        for name, told in zip(names, tree.entries(parent, names), strict=True):
            try:
                found = tree.lookup(parent, name)
            except NotFound:
                assert isinstance(told, NotFound)
                continue
            if found.node.kind in {Kind.METADATA, Kind.USERS}:
                assert told == (found.node, told[1])  # type: ignore[index]
            else:
                assert told == found
