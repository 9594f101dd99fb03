"""The tree without a kernel: lookup and listing agree, and what is refused changes nothing."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound, NotPermitted
from potofs.tree import nodes
from potofs.tree.nodes import FAMILIES, FIXED, ROOT, Kind, Node
from potofs.tree.tree import Tree
from tests import redis_servers

FIRST = ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z")
FIRST_RECORD = b'role: user\ncontent: Hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
SCRATCH = Node(Kind.SCRATCH, "mia", "dialogs/archived/.refund.yaml.Xy12Zz")
SECOND = ChatMessage("user", "Again", "2024-01-16T10:30:00.000Z")


@pytest.fixture
def tree(journal: DialogueJournal) -> Iterator[Tree]:
    """A tree in which every kind of entry is there."""
    for user in ("mia", "a/b", ".."):
        journal.add_message(user, FIRST)
        journal.archive_conversation(user, "refund/2024")
        journal.add_message(user, SECOND)
        journal.backend.set_aside(user, b"hello\n")
    journal.backend.append_log(b"done\n")
    tree = served(journal)
    with closing(tree.make_scratch(SCRATCH, 0o600, (0, 0))) as scratch:
        scratch.write(0, b"hello")
    yield tree
    tree.close()


def served(journal: DialogueJournal) -> Tree:
    """A tree as something serves it."""
    tree = Tree(journal)
    tree.system.metrics = lambda _: b"potofs_open_files 0\n"
    return tree


def walk(tree: Tree, node: Node = ROOT) -> Iterator[tuple[Node, str, Node]]:
    """Every entry that is listed: its directory, its name, and what its name is looked up as."""
    for name in tree.names(node):
        entry = tree.lookup(node, name)
        yield node, name, entry.node
        if entry.node.kind.is_directory:
            yield from walk(tree, entry.node)


def test_every_kind_of_entry_is_listed_and_looked_up_as_what_it_is(tree: Tree) -> None:
    found = list(walk(tree))
    assert {node.kind for _, _, node in found} == set(Kind) - {Kind.ROOT}
    for parent, name, node in found:
        assert nodes.name_of(parent, node) == name
        assert nodes.child(parent, name) == node
        assert "/" not in name
        assert name.startswith(".") == (node == SCRATCH)


def test_every_directory_is_in_the_table_that_lookup_and_listing_go_by() -> None:
    assert set(FIXED) | set(FAMILIES) == {kind for kind in Kind if kind.is_directory}
    assert not set(FIXED) & set(FAMILIES)


def test_inode_numbers_are_unique_and_stay(tree: Tree, journal: DialogueJournal) -> None:
    def numbers(tree: Tree) -> dict[str, int]:
        return {f"{parent}/{name}": tree.attributes(node).inode for parent, name, node in walk(tree)}

    first = numbers(tree)
    assert len(set(first.values())) == len(first)
    assert all(0 < number < 1 << 64 for number in first.values())
    del first[f"{Node(Kind.ARCHIVED, 'mia')}/.refund.yaml.Xy12Zz"]
    assert numbers(served(journal)) == first


def test_what_is_listed_as_so_large_has_so_many_bytes(tree: Tree) -> None:
    for _, name, node in walk(tree):
        if not node.kind.is_directory and node != SCRATCH:
            with tree.open(node) as reader:
                assert len(reader.read_all()) == tree.attributes(node).size > 0, name


@pytest.mark.parametrize("kind", [Kind.USER, Kind.DIALOGS, Kind.ARCHIVED, Kind.REJECTED])
def test_the_directories_of_a_user_who_is_gone_are_not_shown_as_empty(tree: Tree, kind: Kind) -> None:
    """The kernel may remember them for a moment, and whoever copies them would remove what the copy has."""
    folder = Node(kind, "nobody")
    with pytest.raises(NotFound):
        tree.entries(folder, list(tree.names(folder)))


@pytest.mark.parametrize("name", ["nobody", "%6Dia", "..", ".", ".git", "a%2fb", "x%", "\udcff", "n" * 255])
def test_a_name_that_is_nobody_s_is_not_found(tree: Tree, name: str) -> None:
    with pytest.raises(NotFound):
        tree.lookup(Node(Kind.USERS), name)


def test_a_name_that_no_file_system_takes_is_said_to_be_too_long(tree: Tree) -> None:
    folders = {Node(Kind.ROOT)} | {node for _, _, node in walk(tree) if node.kind.is_directory}
    for parent in folders:
        for name in ("n" * 256, "." + "é" * 128):
            with pytest.raises(NameTooLong):
                tree.lookup(parent, name)
            with pytest.raises(NameTooLong):
                tree.to_create(parent, name)


def test_the_archive_called_current_never_exists(tree: Tree) -> None:
    archived = Node(Kind.ARCHIVED, "mia")
    with pytest.raises(NotFound):
        tree.lookup(archived, "current.yaml")
    dialogs = Node(Kind.DIALOGS, "mia")
    assert tree.rename(dialogs, "current.yaml", archived, "current.yaml").name != "current"


def test_directories_can_only_be_made_as_users(tree: Tree) -> None:
    assert tree.make_directory(Node(Kind.USERS), "max").node == Node(Kind.USER, "max")
    with pytest.raises(AlreadyExists):
        tree.make_directory(Node(Kind.USERS), "max")
    for name in (".hidden", "%6Dax", "\udcff"):
        with pytest.raises(InvalidName):
            tree.make_directory(Node(Kind.USERS), name)
    for kind in set(Kind) - {Kind.USERS}:
        with pytest.raises(NotPermitted):
            tree.make_directory(Node(kind, "mia"), "folder")


def test_only_the_running_conversation_takes_what_is_appended(tree: Tree) -> None:
    for kind in set(Kind) - {Kind.CURRENT}:
        with pytest.raises(NotPermitted):
            tree.appender(Node(kind, "mia", "refund/2024"))


def test_only_what_has_a_place_in_the_tree_can_be_made(tree: Tree) -> None:
    dialogs = Node(Kind.DIALOGS, "mia")
    for name in ("other.yaml", "current.yml"):
        with pytest.raises(NotPermitted):
            tree.to_create(dialogs, name)
    with pytest.raises(NotPermitted):
        tree.to_create(Node(Kind.USERS), ".git")
    assert tree.to_create(dialogs, "current.yaml") == Node(Kind.CURRENT, "mia")
    assert tree.to_create(dialogs, ".current.yaml.swp") == Node(Kind.SCRATCH, "mia", "dialogs/.current.yaml.swp")
    assert tree.to_create(Node(Kind.ARCHIVED, "mia"), "new.yaml") == Node(Kind.ARCHIVE, "mia", "new")


#: Which kinds can become which, of the same user.
MOVES = {
    (Kind.CURRENT, Kind.ARCHIVE),
    (Kind.ARCHIVE, Kind.CURRENT),
    (Kind.ARCHIVE, Kind.ARCHIVE),
    *((Kind.SCRATCH, kind) for kind in (Kind.CURRENT, Kind.ARCHIVE, Kind.REJECTED_FILE, Kind.METADATA, Kind.SCRATCH)),
}


def test_nothing_is_moved_that_could_not_be_what_it_is_called_then(tree: Tree) -> None:
    before = [(parent, name) for parent, name, _ in walk(tree)]
    places = {parent for parent, _ in before}
    names = {"users", "mia", "dialogs", "current.yaml", "archived", "moved.yaml", ".moved", "metadata.yaml", "system"}
    for parent, name, node in list(walk(tree)):
        for target in places:
            for new in names:
                try:
                    found = nodes.child(target, new)
                except InvalidName:
                    found = None
                by_time = target.kind is Kind.ARCHIVED and new == "current.yaml" and node.kind is Kind.CURRENT
                if node.user == target.user and (by_time or (found and (node.kind, found.kind) in MOVES)):
                    continue
                with pytest.raises(NotPermitted):
                    tree.rename(parent, name, target, new)
    assert [(parent, name) for parent, name, _ in walk(tree)] == before
    with pytest.raises(AlreadyExists):
        tree.rename(Node(Kind.DIALOGS, "mia"), "current.yaml", Node(Kind.ARCHIVED, "mia"), "refund%2F2024.yaml")
    with pytest.raises(InvalidName):
        tree.rename(Node(Kind.DIALOGS, "mia"), "current.yaml", Node(Kind.ARCHIVED, "mia"), "moved.txt")
    assert [(parent, name) for parent, name, _ in walk(tree)] == before


def test_only_what_was_rejected_and_scratch_files_can_be_removed(tree: Tree) -> None:
    for parent, name, node in list(walk(tree)):
        if node.kind not in {Kind.REJECTED_FILE, Kind.SCRATCH}:
            with pytest.raises(NotPermitted):
                tree.remove(parent, name)
    tree.remove(Node(Kind.ARCHIVED, "mia"), ".refund.yaml.Xy12Zz")
    assert list(tree.names(Node(Kind.ARCHIVED, "mia"))) == ["refund%2F2024.yaml"]
    rejected = Node(Kind.REJECTED, "mia")
    tree.remove(rejected, next(tree.names(rejected)))
    assert list(tree.names(Node(Kind.DIALOGS, "mia"))) == ["archived", "current.yaml", "rejected"]
    with pytest.raises(NotFound):
        tree.lookup(Node(Kind.DIALOGS, "mia"), "rejected")


def test_a_conversation_is_followed_to_where_it_went(tree: Tree, journal: DialogueJournal, root: Path) -> None:
    current = Node(Kind.CURRENT, "mia")
    inode = tree.attributes(current).inode
    journal.archive_conversation("mia", "later")
    assert tree.relocated(current, inode).node == Node(Kind.ARCHIVE, "mia", "later")


# The time of metadata.yaml


def metadata_of(journal: DialogueJournal, user: str) -> tuple[bytes, int]:
    """What is shown of a user: contents and time (nanoseconds since 1970)."""
    tree, node = Tree(journal), Node(Kind.METADATA, user)
    with tree.open(node) as contents:
        assert tree.attributes(node).mtime_ns == contents.stat().mtime_ns
        return contents.read_all(), contents.stat().mtime_ns


def test_metadata_has_the_latest_time_of_what_it_is_made_of(journal: DialogueJournal) -> None:
    backend = journal.backend
    journal.create_user("mia")
    assert metadata_of(journal, "mia")[1] == backend.profile_changed("mia") > 10**18
    backend.put_profile("mia", b"", 5)
    assert metadata_of(journal, "mia")[1] == 5
    backend.put_archive("mia", "refund", FIRST_RECORD, 8)
    backend.put_archive("mia", "other", FIRST_RECORD, 7)
    assert metadata_of(journal, "mia")[1] == 8
    backend.put_current("mia", FIRST_RECORD, 6)
    assert metadata_of(journal, "mia")[1] == 8
    backend.set_times("mia", None, 9)
    backend.set_changed("mia", 10**18)
    assert metadata_of(journal, "mia")[1] == 9, "when names changed in its folders is not what it shows"
    journal.add_message("mia", SECOND)
    assert metadata_of(journal, "mia")[1] == backend.stat("mia").mtime_ns > 10**18


def test_a_restored_user_has_the_metadata_and_its_time_that_there_were(
    tree: Tree, journal: DialogueJournal, tmp_path: Path
) -> None:
    """Whatever comes first, and in however many pieces."""
    journal.create_user("zoe")
    there = journal.backend
    for where in (f"file://{tmp_path}/copy", f"redis://{redis_servers.shared().place}?keyPrefix={tmp_path}:"):
        with open_journal(where) as copy:
            here = copy.backend
            for user in ("zoe", "mia", "a/b", ".."):
                contents, when = metadata_of(journal, user)
                here.create_user(user, b"")
                if user != "zoe":
                    data, stat = journal.read_bytes(user), there.stat(user)
                    here.put_current(user, data[:20], stat.mtime_ns)
                here.put_profile(user, there.read_profile(user), when)
                for archive in there.archives(user):
                    here.put_archive(user, archive.name, journal.read_bytes(user, archive.name), archive.stat.mtime_ns)
                if user != "zoe":
                    assert here.extend(user, here.stat(user), data[20:], stat.mtime_ns)
                assert metadata_of(copy, user) == (contents, when)


def test_a_user_is_just_made_until_something_is_said_and_a_copy_says_nothing(tree: Tree) -> None:
    zoe = tree.make_directory(Node(Kind.USERS), "zoe").node
    current = Node(Kind.CURRENT, "zoe")
    copy = tree.draft(current, empty=False)
    copy.write(0, b'role: user\ncontent: Hi\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n')
    copy.commit()
    copy.close()
    tree.attributes(current)
    assert tree.is_just_made(zoe)
    appender = tree.appender(current)
    taken = tree.system.tally.taken
    appender.write(b"role: user\ncontent: And now?\n")
    assert tree.is_just_made(zoe)
    appender.write(b"---\n")
    assert not tree.is_just_made(zoe)
    assert tree.system.tally.taken.records == taken.records + 1
    appender.close()


def test_whoever_was_said_something_to_elsewhere_is_not_just_made(tree: Tree, journal: DialogueJournal) -> None:
    zoe = tree.make_directory(Node(Kind.USERS), "zoe").node
    journal.add_message("zoe", ChatMessage("user", "Hi"))
    assert tree.is_just_made(zoe)
    tree.lookup(Node(Kind.DIALOGS, "zoe"), "current.yaml")
    assert not tree.is_just_made(zoe)
