"""Importing conversations, one a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Backend
from potofs.errors import AlreadyExists, InvalidMessage
from potofs.journal import importing
from potofs.journal.importing import Imported, import_file
from tests import samples

Line = dict[str, Any]


def said(content: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, "timestamp": f"2024-05-01T08:00:{number:02d}.000Z", **more}


def line(user: str, conversation: str | None, *contents: str) -> Line:
    found: Line = {"user": user, "messages": [said(content, number) for number, content in enumerate(contents)]}
    return found if conversation is None else {**found, "conversation": conversation}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of lines and returns its path."""

    def written(*lines: Line | str | bytes) -> str:
        path = tmp_path / "conversations.jsonl"
        texts = [text if isinstance(text, str | bytes) else json.dumps(text) for text in lines]
        path.write_bytes(b"\n".join(text.encode() if isinstance(text, str) else text for text in texts))
        return str(path)

    return written


def contents(journal: DialogueJournal, user: str, archive: str | None = None) -> list[str]:
    entries = list(journal.read_conversation(user, archive))
    assert all(isinstance(entry, ChatMessage) for entry in entries)
    return [entry.content for entry in entries if isinstance(entry, ChatMessage)]


def everything(journal: DialogueJournal) -> dict[str, dict[str | None, bytes]]:
    """All conversations of all users, with their times."""
    found: dict[str, dict[str | None, bytes]] = {}
    for user in journal.users():
        stats = {archive.name: archive.stat for archive in journal.backend.archives(user)}
        found[user] = {name: b"%d %s" % (stats[name].mtime_ns, journal.read_bytes(user, name)) for name in stats}
        found[user][None] = journal.read_bytes(user)
    return found


def test_several_conversations_of_a_user_become_archives_and_the_last_stays(
    journal: DialogueJournal, written: Callable[..., str]
) -> None:
    path = written(
        line("mia", "first", "a", "b"), line("noah", "other", "x"), line("mia", None, "c"), line("mia", "last", "d")
    )
    assert import_file(journal, path) == Imported(conversations=4, messages=5, present=0)
    assert contents(journal, "mia", "first") == ["a", "b"]
    assert contents(journal, "mia", "20240501T080000.000Z") == ["c"]
    assert contents(journal, "mia") == ["d"]
    assert contents(journal, "noah") == ["x"]
    assert len(journal.backend.archives("mia")) == 2
    assert journal.backend.archives("noah") == []


def test_every_value_of_a_message_is_kept(journal: DialogueJournal, written: Callable[..., str]) -> None:
    message = said("Grüße 👋\nzwei", 1, metadata={"tokens": 3, "deep": {"a": [1, None]}}, name="Mia")
    import_file(journal, written({"user": "a/b", "messages": [message], "source": "ignored"}))
    assert journal.get_conversation("a/b") == [
        ChatMessage("user", "Grüße 👋\nzwei", message["timestamp"], message["metadata"], {"name": "Mia"})
    ]


def test_a_conversation_has_the_time_of_its_latest_message(
    journal: DialogueJournal, written: Callable[..., str]
) -> None:
    import_file(journal, written(line("mia", "first", "a", "b", "c"), line("mia", "last", "d")))
    assert journal.backend.stat("mia", "first").mtime_ns == 1_714_550_402_000_000_000
    assert journal.backend.stat("mia").mtime_ns == 1_714_550_400_000_000_000


def test_the_time_is_that_of_the_messages_even_in_1970(journal: DialogueJournal, written: Callable[..., str]) -> None:
    old = {"role": "user", "content": "a", "timestamp": "1970-01-01T00:00:00.000Z"}
    import_file(journal, written({"user": "mia", "messages": [old]}))
    assert journal.backend.stat("mia").mtime_ns == 0


def test_importing_again_changes_nothing(journal: DialogueJournal, conversations: Path) -> None:
    lines = samples.load(conversations)
    first = import_file(journal, str(conversations))
    assert first.conversations + first.present == len(lines)
    before = everything(journal)
    assert import_file(journal, str(conversations)) == Imported(0, 0, len(lines))
    assert everything(journal) == before


def test_importing_again_changes_nothing_once_the_conversation_has_gone_on(
    journal: DialogueJournal, written: Callable[..., str]
) -> None:
    path = written(line("mia", "first", "a"), line("mia", "last", "b"))
    import_file(journal, path)
    journal.add_message("mia", ChatMessage("assistant", "c"))
    assert import_file(journal, path) == Imported(0, 0, 2)
    journal.archive_conversation("mia")
    journal.add_message("mia", ChatMessage("user", "d"))
    assert import_file(journal, path) == Imported(0, 0, 2)
    assert contents(journal, "mia") == ["d"]


class _Cut(Exception):
    pass


@pytest.mark.parametrize("stored", range(1, 6))
def test_an_import_that_was_cut_short_is_finished_by_the_next(
    root: Path, tmp_path: Path, written: Callable[..., str], monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    path = written(*(line(user, "same", f"{user} {turn}") for turn in range(3) for user in ("mia", "noah")))
    whole, left = importing._store, [stored]

    def cut(journal: DialogueJournal, *arguments: Any, **options: Any) -> bool:
        if not left[0]:
            raise _Cut
        left[0] -= 1
        return whole(journal, *arguments, **options)

    with open_journal(f"file://{root}") as journal:
        with monkeypatch.context() as patched:
            patched.setattr(importing, "_store", cut)
            with pytest.raises(_Cut):
                import_file(journal, path)
        assert import_file(journal, path) == Imported(6 - stored, 6 - stored, stored)
        finished = everything(journal)
    with open_journal(f"file://{tmp_path}/other") as other:
        import_file(other, path)
        assert everything(other) == finished


def test_a_running_conversation_of_the_user_stays_and_the_last_becomes_an_archive_too(
    journal: DialogueJournal, written: Callable[..., str]
) -> None:
    journal.add_message("mia", ChatMessage("user", "mine"))
    path = written(line("mia", "first", "a"), line("mia", "last", "b"))
    assert import_file(journal, path).conversations == 2
    assert contents(journal, "mia") == ["mine"]
    assert contents(journal, "mia", "first") == ["a"]
    assert contents(journal, "mia", "last") == ["b"]
    assert import_file(journal, path) == Imported(0, 0, 2)


def test_more_messages_than_the_threshold_stay_one_conversation_until_the_next_append(
    journal: DialogueJournal, written: Callable[..., str]
) -> None:
    many = {"user": "mia", "messages": [said(str(number), number % 60) for number in range(250)]}
    assert import_file(journal, written(many)) == Imported(1, 250, 0)
    assert contents(journal, "mia") == [str(number) for number in range(250)]
    journal.add_message("mia", ChatMessage("user", "one more"))
    (archive,) = journal.backend.archives("mia")
    assert contents(journal, "mia", archive.name) == [*map(str, range(250)), "one more"]


def test_conversations_of_one_name_are_told_apart(journal: DialogueJournal, written: Callable[..., str]) -> None:
    path = written(*(line("mia", "refund", content) for content in "abc"), line("mia", "refund-2", "d"))
    import_file(journal, path)
    found = {archive.name: contents(journal, "mia", archive.name) for archive in journal.backend.archives("mia")}
    assert found == {"refund": ["a"], "refund-2": ["b"], "refund-3": ["c"]}
    assert contents(journal, "mia") == ["d"]
    assert import_file(journal, path) == Imported(0, 0, 4)


def test_another_import_of_the_same_file_at_the_same_time_doubles_nothing(
    journal: DialogueJournal, written: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(line("mia", "refund", "a"), line("mia", "last", "b"))
    put: Callable[..., None] = type(journal.backend).put_archive

    def late(backend: Backend, user: str, name: str, data: bytes, mtime_ns: int) -> None:
        monkeypatch.undo()
        put(backend, user, name, data, mtime_ns)
        raise AlreadyExists("the other was quicker")

    monkeypatch.setattr(type(journal.backend), "put_archive", late)
    assert import_file(journal, path) == Imported(1, 1, 1)
    assert [archive.name for archive in journal.backend.archives("mia")] == ["refund"]


def test_blank_lines_are_nothing_and_progress_is_told(journal: DialogueJournal, written: Callable[..., str]) -> None:
    path = written(line("mia", "first", "a"), "", "  ", line("mia", "last", "b"), "")
    steps: list[int] = []
    assert import_file(journal, path, steps.append).conversations == 2
    assert importing.size_of(path) - 10 <= sum(steps) <= importing.size_of(path)


GOOD = line("mia", "first", "a")
SAID = '{"role": "user", "content": "a", "timestamp": "2024-01-15"}'


def of_mia(message: str) -> str:
    return f'{{"user": "mia", "messages": [{SAID}, {message}]}}'


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"user": ¦"mia', "Unterminated string starting at"),
        (f'{{"user": "mia", "messages": [{SAID}¦', "Expecting ',' delimiter"),
        (f'{{"user": "mia", "messages": [{SAID}]}} ¦x', "Extra data"),
        ("{¦", "Expecting property name enclosed in double quotes; a conversation stands on one line"),
        ("¦[]", "a conversation has to be an object, and an array begins here, as in an exported file: write each"),
        (f" ¦[\n{SAID}\n]", "a conversation has to be an object, and an array begins here"),
        (b"\xff", "line 2, column 1: not UTF-8: "),
        (b'{"user": "\xc3\xa9\xff", "messages": []}', "line 2, column 12: not UTF-8: "),
        (f'{{"user": ¦"\\ud83d", "messages": [{SAID}]}}', "user: '\\ud83d' has a lone surrogate"),
        (f'¦{{"messages": [{SAID}]}}', "the key user is missing"),
        ('¦{"user": "mia"}', "the key messages is missing"),
        ('{"user": "mia", "messages": ¦[]}', "a conversation without messages"),
        ('{"user": "mia", "messages": ¦{}}', "messages has to be an array, not dict"),
        (f'{{"user": ¦"", "messages": [{SAID}]}}', "user: an empty name"),
        (f'{{"user": ¦7, "messages": [{SAID}]}}', "user has to be text, not int"),
        (f'{{"user": ¦"{"a" * 256}", "messages": [{SAID}]}}', "user: 'aaa"),
        (
            f'{{"user": "mia", "conversation": ¦"current", "messages": [{SAID}]}}',
            "conversation: an archive cannot be c",
        ),
        (f'{{"user": "mia", "conversation": ¦5, "messages": [{SAID}]}}', "conversation has to be text, not int"),
        (f'{{"user": "mia", "conversation": ¦"{"x" * 250}", "messages": [{SAID}]}}', "conversation: 'xxx"),
        (f'{{"user": "mia", ¦"user": "noah", "messages": [{SAID}]}}', "the key 'user' stands twice"),
        (f'{{"user": "mia", "messages": [{SAID}], "source": [¦NaN]}}', "NaN is no JSON"),
        (of_mia('¦"a"'), "message 2: a message has to be an object"),
        (of_mia('{"role": ¦"robot", "content": "a", "timestamp": "2024-01-15"}'), "message 2: role 'robot' is unknown"),
        (of_mia('{"role": "user", ¦"role": "user"}'), "message 2: the key 'role' stands twice"),
        (of_mia('¦{"role": "user", "content": "a"}'), "message 2: the key timestamp is missing"),
        (of_mia('{"role": "user", "content": "a", "timestamp": ¦""}'), "message 2: the key timestamp is missing or em"),
        (of_mia('{"role": "user", "content": "é", "timestamp": ¦"noon"}'), "message 2: timestamp 'noon' is not a time"),
        (of_mia('{"role": "user", "content": ¦1, "timestamp": "2024-01-15"}'), "message 2: content has to be text"),
        (of_mia('{"role": "user", "content": ¦null, "timestamp": "2024-01-15"}'), "message 2: content has to be text"),
        (of_mia(f'{SAID[:-1]}, "metadata": ¦[1]}}'), "message 2: metadata has to be a mapping"),
        (of_mia(f'{SAID[:-1]}, "metadata": {{"a": [{{¦"<<": 1}}]}}}}'), "message 2: the key << means something else"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_column_and_nothing_is_stored(
    journal: DialogueJournal, written: Callable[..., str], bad: str | bytes, reason: str
) -> None:
    expected = reason
    if isinstance(bad, str):
        expected = f"line 2, column {bad.index('¦') + 1}: {reason}"
        bad = bad.replace("¦", "")
    with pytest.raises(InvalidMessage) as caught:
        import_file(journal, written(GOOD, bad, GOOD))
    assert str(caught.value).startswith(expected)
    assert caught.value.line == 2
    assert list(journal.users()) == []


def test_the_last_line_may_lack_its_end_but_nothing_else(journal: DialogueJournal, written: Callable[..., str]) -> None:
    text = json.dumps(GOOD)
    for cut in range(1, len(text)):
        with pytest.raises(InvalidMessage, match=r"^line 2, column "):
            import_file(journal, written(GOOD, text[:cut]))
    assert list(journal.users()) == []
    assert import_file(journal, written(GOOD, text)).conversations == 1


def test_a_file_that_is_not_there_is_an_error_of_the_system(journal: DialogueJournal, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_file(journal, str(tmp_path / "nothing"))
