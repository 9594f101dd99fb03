"""What a program is told that calls the journal wrongly: one line that names the argument, and nothing happens."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from potofs import ChatMessage, CleanupOptions, DialogueJournal, PotofsError, aio, open_journal
from potofs.errors import ConfigError, InvalidMessage, InvalidName
from tests.journal.test_exchange import HELLO, archiving

# In the calls below everything is of any type, as in a program that nobody checks.
Call = Callable[[Any], Any]
opened: Any = open_journal
message: Any = ChatMessage
options: Any = CleanupOptions


async def _coming() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda j: j.add_message(5, HELLO), "user has to be a PotoUser or its id, which is text, not int"),
        (lambda j: j.add_message(None, HELLO), "user has to be .*, not NoneType"),
        (lambda j: j.add_message(b"mia", HELLO), "user has to be .*, not bytes"),
        (lambda j: j.get_conversation(5), "user has to be .*, not int"),
        (lambda j: j.read_conversation({}), "user has to be .*, not dict"),
        (lambda j: j.read_bytes([]), "user has to be .*, not list"),
        (lambda j: j.create_user(5), "user has to be .*, not int"),
        (lambda j: j.must_have_user(5), "user has to be .*, not int"),
        (lambda j: j.user_metadata(5), "user has to be .*, not int"),
        (lambda j: j.appender(5), "user has to be .*, not int"),
        (lambda j: j.clear_conversation(5), "user has to be .*, not int"),
        (lambda j: j.archive_conversation(5), "user has to be .*, not int"),
        (lambda j: j.get_archived_conversations(5), "user has to be .*, not int"),
        (lambda j: j.restore_conversation(5, "refund"), "user has to be .*, not int"),
        (lambda j: j.export_conversation(5, "json"), "user has to be .*, not int"),
        (lambda j: j.import_conversation(5, "[]", "json"), "user has to be .*, not int"),
        (
            lambda j: j.add_message("mia", HELLO.to_items()),
            "message has to be a ChatMessage, not dict: ChatMessage.from_json makes one of the document's JSON",
        ),
        (lambda j: j.add_message("mia", HELLO.to_json()), "message has to be a ChatMessage, not str: ChatMessage.from"),
        (lambda j: j.add_message("mia", None), "message has to be a ChatMessage, not NoneType"),
        (lambda j: j.add_messages("mia", [HELLO, {}]), "message has to be a ChatMessage, not dict"),
        (
            lambda j: j.add_messages("mia", HELLO),
            "messages has to be an iterable of ChatMessage, not ChatMessage: give a single one in a list",
        ),
        (lambda j: j.add_messages("mia", "Hello"), "messages has to be an iterable of ChatMessage, not str"),
        (lambda j: j.add_messages("mia", None), "messages has to be an iterable of ChatMessage, not NoneType"),
        (lambda j: j.append("mia", [HELLO]), "records has to be Records, not ChatMessage: add_messages takes"),
        (lambda j: j.append_pieces("mia", b"role"), "pieces has to be an iterable of bytes, not bytes"),
        (
            lambda j: j.append_pieces("mia", _coming()),
            "pieces has to be an iterable of bytes, not async_generator: potofs.aio takes one as pieces",
        ),
        (lambda j: j.read_range("mia", "0", 5), "offset has to be a whole number, not str"),
        (lambda j: j.read_range("mia", 0, None), "size has to be a whole number, not NoneType"),
        (lambda j: j.append_pieces("mia", ["role"]), "a piece has to be bytes, not str"),
        (lambda j: j.archive_conversation("mia", 5), "conversation_id has to be text or None, not int"),
        (lambda j: j.restore_conversation("mia", 5), "archive_id has to be text, not int"),
        (lambda j: j.restore_conversation("mia", None), "archive_id has to be text, not NoneType"),
        (lambda j: j.read_conversation("mia", 5), "archive has to be text or None, not int"),
        (lambda j: j.export_pieces("mia", "json", 5), "archive has to be text or None, not int"),
        (lambda j: j.export_conversation("mia", None), "format has to be text, not NoneType"),
        (lambda j: j.import_conversation("mia", None, "json"), "data has to be text, or bytes of UTF-8, not NoneType"),
        (lambda j: j.import_conversation("mia", [HELLO], "json"), "data has to be .*, not list"),
        (lambda j: j.import_conversation("mia", "[]", 5), "format has to be text, not int"),
        (lambda j: j.import_pieces("mia", "[]", "json"), "pieces has to be an iterable of bytes or text, not str"),
        (lambda j: j.import_pieces("mia", [5], "json"), "a piece has to be bytes or text, not int"),
        (
            lambda j: j.cleanup({"maxAgeHours": 1}),
            "options has to be CleanupOptions, not dict: CleanupOptions.from_json makes them of the document's JSON",
        ),
        (lambda j: j.cleanup({}), "options has to be CleanupOptions, not dict"),
        (lambda j: j.cleanup(0), "options has to be CleanupOptions, not int"),
        (lambda j: j.fsck("mia"), "users has to be an iterable of users, not str: give a single one in a list"),
        (lambda j: list(j.fsck([5])), "user has to be .*, not int"),
        (lambda _: opened(5), "where has to be a backend's URL or a Where, not int: write \"file:///var"),
        (lambda _: opened(None), "where has to be .*, not NoneType"),
        (lambda _: opened(Path("/var/lib/poto")), "where has to be .*, not PosixPath"),
        (lambda _: message.from_items("role"), "items has to be a mapping, not str: ChatMessage.from_json takes"),
        (lambda _: options.from_json({"maxAgeHours": 1}), "text has to be text, or bytes of UTF-8, not dict"),
        (lambda _: message.from_json({}), "text has to be text, not dict: ChatMessage.from_items takes"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named_and_nothing_is_done(call: Call, error: str) -> None:
    with archiving() as journal:
        with pytest.raises(TypeError, match=f"^{error}") as caught:
            call(journal)
        assert "\n" not in str(caught.value)
        assert list(journal.users()) == []


@pytest.mark.parametrize(
    ("make", "kind", "error"),
    [
        (
            lambda: message("user", "a", datetime.fromisoformat("2024-01-15T10:30:00")),
            InvalidMessage,
            "timestamp has to be text, not datet",
        ),
        (lambda: message("user", "a", datetime.now(UTC)), InvalidMessage, r"give timestamp.astimezone\(UTC\)"),
        (lambda: message("user", "a", 1705314600), InvalidMessage, "timestamp has to be text, not int: write it"),
        (lambda: message("user", "a", "15 January"), InvalidMessage, "timestamp '15 January' is not a time"),
        (lambda: message("user", None), InvalidMessage, "content has to be text, not NoneType"),
        (lambda: message("user", "a", "", "gpt-4"), InvalidMessage, "metadata has to be a mapping, not str"),
        (lambda: message("user", "a", "", None, None), InvalidMessage, "extra has to be a mapping, not NoneType"),
        (lambda: message("user", "a", "", None, 5), InvalidMessage, "extra has to be a mapping, not int"),
        (lambda: options(max_age_hours="7"), ConfigError, "max_age_hours cannot be '7': it has to be a number"),
        (lambda: options(dry_run=1), ConfigError, "dry_run cannot be 1: it has to be True or False"),
        (
            lambda: options.from_json('{"maxAgeHours": "7"}'),
            ConfigError,
            "^not the JSON of CleanupOptions: maxAgeHours: Expected `float`, got `str`$",
        ),
        (lambda: options(max_age_hours=-1), ConfigError, "max_age_hours has to be 0 or more, not -1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_when_it_is_made(make: Any, kind: type[PotofsError], error: str) -> None:
    with pytest.raises(kind, match=error) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_bytes_are_imported_as_text_is() -> None:
    with archiving() as journal:
        assert journal.import_conversation("mia", f"[{HELLO.to_json()}]".encode(), "json") is True
        assert journal.get_conversation("mia") == [HELLO]


def test_a_name_that_no_archive_has_restores_nothing(journal: DialogueJournal) -> None:
    """The running conversation would have to make way for it."""
    journal.add_message("mia", HELLO)
    for name in ("", "current", "\ud800"):
        with pytest.raises(InvalidName):
            journal.restore_conversation("mia", name)
    assert journal.get_conversation("mia") == [HELLO]
    assert journal.get_archived_conversations("mia") == []


@pytest.mark.anyio
async def test_the_async_journal_refuses_the_same(root: Path) -> None:
    nothing: Any = None
    number: Any = 5
    async with await aio.open_journal(f"file://{root}") as journal:
        await journal.add_message("mia", HELLO)
        with pytest.raises(TypeError, match="archive_id has to be text, not NoneType"):
            await journal.restore_conversation("mia", nothing)
        with pytest.raises(InvalidName, match="an empty name"):
            await journal.restore_conversation("mia", "")
        with pytest.raises(TypeError, match="user has to be"):
            await journal.add_message(number, HELLO)
        assert await journal.get_conversation("mia") == [HELLO]
        assert await journal.get_archived_conversations("mia") == []
    with pytest.raises(TypeError, match="where has to be"):
        await aio.open_journal(number)
