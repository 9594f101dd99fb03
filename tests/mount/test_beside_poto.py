"""A Poto server written for Bun on the same root, which takes no lock: potofs and it read all that the other wrote."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.journal import record
from potofs.journal.reading import Damage
from tests import bun
from tests.mounts import Mount

EACH = 210


def text(writer: str, number: int) -> str:
    """What message `number` of a writer says; some are more than a page of memory."""
    return f"{writer} {number}\n" + f'yes: "{number}" # é😀\n' * (number % 3 if number % 5 else 500)


THROUGH_THE_MOUNT = f"""
import sys
from tests.mount.test_beside_poto import text
from potofs import ChatMessage
from potofs.journal import record
with open(sys.argv[1], "ab", buffering=0) as file:
    for number in range({EACH}):
        file.write(record.encode(ChatMessage("tool", text(sys.argv[3], number), "2024-01-15T10:30:00.000Z")))
"""
THROUGH_THE_LIBRARY = f"""
import sys
from tests.mount.test_beside_poto import text
from potofs import ChatMessage, open_journal
with open_journal(sys.argv[2]) as journal:
    for number in range({EACH}):
        journal.add_message("mia", ChatMessage("tool", text(sys.argv[3], number), metadata={{"tokens": number}}))
"""


class Place:
    """One root that a Poto server shares with a mount and the library."""

    def __init__(self, root: Path, mount_at: Callable[..., Mount], settings: str) -> None:
        self.root = root
        self.url = f"file://{root}?foreignWriters=true&{settings}"
        self.mount = mount_at(self.url)
        self.current = self.mount.current("mia")
        (self.mount.users / "mia").mkdir()

    def writers(self) -> dict[str, bun.Process]:
        """All of them at work: a Poto server twice, once on the mount; potofs as library and as mount."""

        def potofs(writer: str, script: str) -> bun.Process:
            return subprocess.Popen(
                [sys.executable, "-c", script, self.current, self.url, writer],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        return {
            "poto0": bun.poto(self.root, "mia", "append", "poto0", "0", str(EACH)),
            "poto1": bun.poto(self.root, "mia", "append", "poto1", "0", str(EACH)),
            "poto-mounted": bun.poto(self.mount.path, "mia", "append", "poto-mounted", "0", str(EACH)),
            "library": potofs("library", THROUGH_THE_LIBRARY),
            "mounted": potofs("mounted", THROUGH_THE_MOUNT),
        }


@pytest.fixture
def place(root: Path, mount_at: Callable[..., Mount], request: pytest.FixtureRequest) -> Place:
    return Place(root, mount_at, getattr(request, "param", "archiveThreshold=0&maxConversationLength=0"))


def by_writer(contents: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of the messages of each writer, in their order; every message has to be whole."""
    found: dict[str, list[int]] = defaultdict(list)
    for content in contents:
        writer, number = content.split("\n")[0].split(" ")
        assert content.rstrip("\n") == text(writer, int(number)).rstrip("\n")
        found[writer].append(int(number))
    return found


def from_the_first_on(found: dict[str, list[int]]) -> bool:
    """Whether there is no gap, nothing twice and nothing out of order."""
    return all(numbers == list(range(len(numbers))) for numbers in found.values())


def said(journal: DialogueJournal, archive: str | None = None) -> Iterator[str]:
    """What potofs finds; an append that is under way may be the only damage."""
    for entry in journal.read_conversation("mia", archive):
        if isinstance(entry, Damage):
            assert entry.torn
        else:
            yield entry.content


def test_each_reads_all_that_the_other_wrote_while_both_write(place: Place) -> None:
    writers = place.writers()
    with (
        open_journal(place.url) as journal,
        bun.reader(place.root, "mia") as on_files,
        bun.reader(place.mount.path, "mia") as mounted,
    ):
        complete = {writer: list(range(EACH)) for writer in writers}
        readers: list[Callable[[], Iterable[str]]] = [
            lambda: (message["content"] for message in on_files.read()),
            lambda: (message["content"] for message in mounted.read()),
            lambda: said(journal),
        ]
        rounds = 0
        while any(process.poll() is None for process in writers.values()):
            rounds += 1
            for read in readers:
                assert from_the_first_on(by_writer(read()))
        for process in writers.values():
            bun.finish(process)
        assert rounds > 3
        for read in readers:
            assert by_writer(read()) == complete
        # Typed alike, too.
        ours = [json.loads(message.to_json()) for message in journal.get_conversation("mia")]
        assert ours == on_files.read() == mounted.read()
        assert journal.get_stats().total_messages == len(ours)


@pytest.mark.parametrize(
    "place", ["archiveThreshold=0&maxConversationLength=0", "archiveThreshold=40"], indirect=True, ids=str
)
def test_it_archives_while_potofs_appends_and_nothing_is_lost(place: Place) -> None:
    writers = place.writers()
    archiver = bun.poto(place.root, "mia", "archive")
    for process in writers.values():
        bun.finish(process)
    bun.finish(archiver)
    with open_journal(place.url) as journal:
        names = [archive.name for archive in journal.backend.archives("mia")]
        assert len(names) > 10
        pieces: dict[str, list[list[int]]] = defaultdict(list)
        for name in [*names, None]:
            for writer, numbers in by_writer(said(journal, name)).items():
                pieces[writer].append(numbers)
            if name:
                with bun.reader(place.root, "mia", name) as reader:
                    theirs = [message["content"] for message in reader.read()]
                assert theirs == list(said(journal, name)) != []
    # A conversation that was archived in the middle of an append ends with that: each piece goes on where one ended.
    found = {writer: [number for piece in sorted(pieces[writer]) for number in piece] for writer in pieces}
    assert found == {writer: list(range(EACH)) for writer in writers}


def test_a_message_that_it_wrote_is_known_as_given(place: Place) -> None:
    bun.finish(bun.poto(place.root, "mia", "append", "poto", "0", "20"))
    with open_journal(place.url) as journal, bun.reader(place.root, "mia") as reader:
        theirs = journal.get_conversation("mia")
        journal.add_messages("mia", theirs)
        with place.current.open("ab") as file:
            file.writelines(record.encode(message) for message in theirs)
        assert [message["content"] for message in reader.read()] == [message.content for message in theirs]
        assert len(theirs) == 20


def test_a_marker_glued_to_its_last_line_spoils_nothing_that_potofs_appends(place: Place) -> None:
    """As the document's own sample writes: `stringify(message) + "---\\n"`, and stringify ends without a newline."""
    with open_journal(place.url) as journal:
        with (place.root / "users/mia/dialogs/current.yaml").open("ab") as file:
            file.write(b"role: user\ncontent: Hello\ntimestamp: 2024-01-15T10:30:00.000Z---\n")
        journal.add_message("mia", ChatMessage("user", "from the library"))
        with place.current.open("ab") as mounted:
            mounted.write(b"role: user\ncontent: from the mount\n")
        entries = list(journal.read_conversation("mia"))
    assert isinstance(entries[0], Damage)
    assert [entry.content for entry in entries if isinstance(entry, ChatMessage)] == [
        "from the library",
        "from the mount",
    ]
