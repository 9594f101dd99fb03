"""Messages that carry their writer and number, so that each can be told to be there, once, whole and in its place."""

from typing import NamedTuple

from potofs import ChatMessage, DialogueJournal
from potofs.journal import reading
from potofs.journal.reading import Damage
from tests.soak.report import Report


def message(writer: str, number: int, lines: int | None = None) -> ChatMessage:
    """Message `number` of a writer: one line, or some that fill pages of memory; `lines` says how many."""
    if lines is None:
        lines = number * 37 % 200 if number % 5 == 0 else 0
    content = f"{writer} {number} {lines}\n" + "".join(f"line {line} of {number}\n" for line in range(lines))
    timestamp = (
        f"2024-01-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    )
    return ChatMessage("user", content, timestamp, {"model": "none", "tokens": number})


class Place(NamedTuple):
    """Where a message is."""

    #: None is the running conversation.
    archive: str | None
    #: How many messages there are in the conversation up to this one.
    position: int


class Contents:
    """What files of such messages hold."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], list[Place]] = {}
        #: Damaged bytes, and the archive they are in.
        self.damage: list[tuple[str | None, bytes]] = []
        self.messages = 0
        #: What is there and is none of these messages, or not in its writer's order.
        self.strange: list[str] = []

    def read(self, archive: str | None, data: bytes) -> None:
        """Takes in what a file holds."""
        last: dict[str, int] = {}
        position = 0
        for entry in reading.read(data):
            if isinstance(entry, Damage):
                self.damage.append((archive, data[entry.offset : entry.offset + entry.length]))
                continue
            position += 1
            try:
                writer, number, lines = entry.content.split("\n")[0].rsplit(" ", 2)
                is_one = entry == message(writer, int(number), int(lines))
            except ValueError:
                self.strange.append(f"{archive} {position}: {entry!r:.200}")
                continue
            if not is_one:
                self.strange.append(f"{archive} {position}: {entry!r:.200}")
            if int(number) <= last.get(writer, -1):
                self.strange.append(f"{archive} {position}: {writer} {number} after {last[writer]}")
            last[writer] = int(number)
            self.places.setdefault((writer, int(number)), []).append(Place(archive, position))
        self.messages += position

    def lost(self, writer: str, acknowledged: int) -> list[int]:
        """Which of messages 0 up to `acknowledged` of a writer are not there."""
        return [number for number in range(acknowledged) if (writer, number) not in self.places]

    def judge(
        self, report: Report, writer: str, acknowledged: int, in_flight: int = 0, *, may_lose: bool = False
    ) -> None:
        """Whether messages 0 up to `acknowledged` of a writer are there once; or at most once if it `may_lose` some.

        The `in_flight` ones after them, of which nobody knows, may be there once or not.
        """
        for number in () if may_lose else self.lost(writer, acknowledged):
            report.violated("an acknowledged record is lost", f"{writer} {number}")
        for number in range(acknowledged + in_flight):
            there = self.places.get((writer, number), [])
            report.must(len(there) < 2, "a record is doubled", f"{writer} {number} {there}")

    def judge_the_rest(self, report: Report, known: dict[str, int]) -> None:
        """Whether nothing else is there, and all is whole and in order; `known`: how many of each writer."""
        for strange in self.strange:
            report.violated("a record is not whole or not in its writer's order", strange)
        for writer, number in self.places:
            report.must(number < known.get(writer, 0), "a record is there that nobody wrote", f"{writer} {number}")


class Found(Contents):
    """All that a user's conversations hold."""

    def __init__(self, journal: DialogueJournal, user: str) -> None:
        super().__init__()
        self.archives = [archive.name for archive in journal.backend.archives(user)]
        self.conversations = len(self.archives)
        for archive in [None, *self.archives]:
            data = journal.read_bytes(user, archive)
            self.conversations += bool(data) and archive is None
            self.read(archive, data)
