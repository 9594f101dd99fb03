"""Export and import of a conversation: nothing is lost, nothing comes twice, nothing of a bad file is stored."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potofs import ChatMessage, DialogueJournal, PotoUser, open_journal
from potofs.backends.base import Fence
from potofs.errors import AlreadyExists, ConfigError, Fenced, NotFound
from potofs.journal import record
from potofs.journal.exchange import FORMATS, Format, intake
from tests.journal.archiving import ArchivingBackend, everything
from tests.journal.generated import TIMESTAMP, TRICKY, messages, texts
from tests.journal.test_jsontext import numbers, same, tags

# A key has to fit into 1024 characters, escapes included.
_values = st.recursive(
    numbers | texts | st.none() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(tags | st.sampled_from([key for key in TRICKY if key != "<<"]), inner, max_size=2)
    ),
    max_leaves=4,
)
# With everything that can be stored in metadata and beside it, NaN and infinity included.
any_messages = st.one_of(
    messages,
    st.builds(
        ChatMessage,
        st.just("tool"),
        st.sampled_from(["=1+1", "@SUM(A1)", "a,b", '"', '""', "\r", "\r\n", "\n", "\x00", ";", "\t", "\ufeff", " a "]),
        st.just(TIMESTAMP),
        st.none() | st.just({}) | st.dictionaries(st.sampled_from(["a", "$numberDouble"]), _values, max_size=2),
        st.dictionaries(st.sampled_from(["b", "$numberDouble", "extra", "null"]), _values, max_size=2),
    ),
)
HELLO = ChatMessage("user", 'Hello, "you"\n=1+1', TIMESTAMP, {"tokens": 2}, {"name": "Mia"})
ANSWER = ChatMessage("assistant", "Hi!\r\n", "2024-01-15T10:30:01.000Z")


def memory() -> DialogueJournal:
    """A journal that forgets nothing before its end."""
    return open_journal("memory:?maxConversationLength=0")


def archiving() -> DialogueJournal:
    return DialogueJournal(ArchivingBackend())


def hold(journal: DialogueJournal, said: list[ChatMessage], user: str = "mia") -> None:
    """Stores a conversation as it is, equal messages included."""
    journal.backend.put_current(user, b"".join(map(record.encode, said)), 0)


def number(count: int, first: int = 0) -> list[ChatMessage]:
    return [
        ChatMessage("user", str(index), f"2024-01-{1 + index // 1440:02d}T{index // 60 % 24:02d}:{index % 60:02d}:00Z")
        for index in range(first, first + count)
    ]


# Round trips


@settings(max_examples=60)
@given(st.lists(any_messages, max_size=4), st.sampled_from(FORMATS))
def test_a_conversation_comes_back_as_it_was_exported(said: list[ChatMessage], form: Format) -> None:
    with memory() as journal:
        if said:
            hold(journal, said)
        # What is stored decides: a number of too many digits, for one, is kept as text.
        stored = journal.get_conversation("mia")
        assert len(stored) == len(said)
        text = journal.export_conversation("mia", form)
        assert journal.import_conversation("noah", text, form) is bool(said)
        assert same(
            [message.to_items() for message in journal.get_conversation("noah")],
            [message.to_items() for message in stored],
        )
        assert journal.export_conversation("noah", form) == text
        assert journal.import_conversation("noah", text, form) is False
        assert journal.import_conversation("mia", text, form) is False


@settings(max_examples=40)
@given(st.lists(any_messages, min_size=1, max_size=3), st.sampled_from(FORMATS), st.integers(1, 40), st.booleans())
def test_pieces_may_be_cut_anywhere(said: list[ChatMessage], form: Format, size: int, is_text: bool) -> None:
    with memory() as journal:
        hold(journal, said)
        text = journal.export_conversation("mia", form)
        assert "".join(journal.export_pieces("mia", form)) == text
        data: Any = text if is_text else text.encode()
        pieces = (data[start : start + size] for start in range(0, len(data), size))
        assert journal.import_pieces("noah", pieces, form) == len(said)
        assert journal.read_bytes("noah") == journal.read_bytes("mia")


def test_json_is_an_array_with_one_message_a_line() -> None:
    with memory() as journal:
        journal.add_messages("mia", [HELLO, ANSWER])
        text = journal.export_conversation("mia", "json")
        assert text.splitlines() == ["[", f"{HELLO.to_json()},", ANSWER.to_json(), "]"]
        assert json.loads(text) == [HELLO.to_items(), ANSWER.to_items()]


def test_csv_is_a_table_with_a_header_and_text_as_it_is() -> None:
    with memory() as journal:
        journal.add_messages("mia", [HELLO, ANSWER])
        text = journal.export_conversation("mia", "csv")
        assert text == (
            "role,content,timestamp,metadata,extra\r\n"
            'user,"Hello, ""you""\n=1+1",2024-01-15T10:30:00.000Z,"{""tokens"": 2}","{""name"": ""Mia""}"\r\n'
            'assistant,"Hi!\r\n",2024-01-15T10:30:01.000Z,,\r\n'
        )
        assert len(list(csv.reader(io.StringIO(text, newline=""), strict=True))) == 3


def test_a_conversation_that_is_not_there_is_an_empty_file() -> None:
    with memory() as journal:
        assert journal.export_conversation("nobody", "json") == "[]\n"
        assert journal.export_conversation("nobody", "csv") == "role,content,timestamp,metadata,extra\r\n"
        for form in FORMATS:
            assert journal.import_conversation("mia", journal.export_conversation("nobody", form), form) is False
        assert list(journal.users()) == []


def test_an_archive_is_exported_as_a_running_conversation_is() -> None:
    with archiving() as journal:
        journal.add_messages(PotoUser("mia"), [HELLO, ANSWER])
        text = journal.export_conversation(PotoUser("mia"), "json")
        journal.archive_conversation("mia", "refund")
        assert "".join(journal.export_pieces("mia", "json", "refund")) == text
        with pytest.raises(NotFound):
            list(journal.export_pieces("mia", "json", "nothing"))


@pytest.mark.expects_warning("user 'mia': damage at byte 0: ")
def test_damage_is_stepped_over_with_a_warning() -> None:
    with memory() as journal:
        journal.backend.put_current("mia", b"torn\n---\n" + record.encode(HELLO), 0)
        assert json.loads(journal.export_conversation("mia", "json")) == [HELLO.to_items()]


def test_a_format_that_there_is_not_is_refused() -> None:
    form: Any = "xml"
    with memory() as journal:
        for refused in (
            lambda: journal.export_conversation("mia", form),
            lambda: journal.import_pieces("mia", [], form),
        ):
            with pytest.raises(ConfigError, match="no format is called 'xml': there is json, csv"):
                refused()
    assert FORMATS == ("json", "csv")


# What other programs write


@pytest.mark.parametrize(
    "text",
    [
        '[{"role":"user","content":"Hello","timestamp":"2024-01-15"}]',
        ' \n[\t{ "timestamp" : "2024-01-15",\r\n"content":"\\u0048ello", "role":"user", "metadata": null } ] \n',
        '\ufeff[{"role":"user","content":"Hello","timestamp":"2024-01-15"}]',
    ],
)
def test_json_of_any_layout_is_taken(text: str) -> None:
    with memory() as journal:
        assert journal.import_conversation("mia", text, "json")
        assert journal.get_conversation("mia") == [ChatMessage("user", "Hello", "2024-01-15")]


@pytest.mark.parametrize(
    "text",
    [
        "role,content,timestamp\nuser,Hello,2024-01-15\n",
        "\ufefftimestamp,role,content\r\n\r\n2024-01-15,user,Hello\r\n\r\n",
        '"role","content","timestamp","extra","metadata"\n"user","Hello","2024-01-15","",""\n',
    ],
)
def test_csv_of_any_layout_is_taken(text: str) -> None:
    with memory() as journal:
        assert journal.import_conversation("mia", text, "csv")
        assert journal.get_conversation("mia") == [ChatMessage("user", "Hello", "2024-01-15")]


def test_a_message_larger_than_the_csv_module_takes_by_itself_is_read() -> None:
    with memory() as journal:
        large = ChatMessage("user", "a\n" * 200_000, TIMESTAMP)
        journal.add_message("mia", large)
        assert journal.import_conversation("noah", journal.export_conversation("mia", "csv"), "csv")
        assert journal.get_conversation("noah") == [large]


# What is there already


@pytest.mark.parametrize("form", FORMATS)
def test_importing_again_adds_nothing_wherever_the_messages_are_by_then(form: Format) -> None:
    with archiving() as journal, memory() as other:
        other.add_messages("mia", number(30))
        text = other.export_conversation("mia", form)
        assert journal.import_conversation("mia", text, form) is True
        journal.archive_conversation("mia", "old")
        journal.add_messages("mia", number(1, 50))
        journal.archive_conversation("mia", "newer")
        before = everything(journal.backend)
        assert journal.import_conversation("mia", text, form) is False
        assert everything(journal.backend) == before


def test_what_is_new_in_a_file_is_appended_to_the_running_conversation() -> None:
    with memory() as journal, memory() as other:
        journal.add_messages("mia", number(3))
        other.add_messages("mia", number(5))
        assert journal.import_pieces("mia", other.export_pieces("mia", "json"), "json") == 2
        assert journal.get_conversation("mia") == number(5)


def test_equal_messages_are_as_many_as_in_the_file_and_no_more_the_second_time() -> None:
    with memory() as journal, memory() as other:
        hold(other, [HELLO, HELLO, ANSWER, HELLO])
        text = other.export_conversation("mia", "json")
        journal.add_message("mia", HELLO)
        assert journal.import_pieces("mia", [text], "json") == 3
        assert journal.import_pieces("mia", [text], "json") == 0
        assert sorted(map(str, journal.get_conversation("mia"))) == sorted(map(str, [HELLO, HELLO, HELLO, ANSWER]))


def test_an_import_larger_than_one_append_is_finished_after_it_was_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(ArchivingBackend):
        appends = 0

        def append(self, *args: Any, **options: Any) -> Any:
            self.appends += 1
            if self.appends == 2:
                raise OSError("the disk is full")
            return super().append(*args, **options)

    monkeypatch.setattr(intake, "_AT_ONCE", 500)
    with memory() as other, DialogueJournal(Cut()) as journal:
        other.add_messages("mia", number(40))
        text = other.export_conversation("mia", "csv")
        with pytest.raises(OSError, match="full"):
            journal.import_conversation("mia", text, "csv")
        stored = len(journal.get_conversation("mia"))
        assert 0 < stored < 40
        assert journal.import_pieces("mia", [text], "csv") == 40 - stored
        assert journal.get_conversation("mia") == number(40)


def test_a_conversation_that_begins_while_an_import_is_stored_goes_on() -> None:
    class Race(ArchivingBackend):
        def put_current(self, user: str, data: bytes, mtime_ns: int) -> None:
            super().put_current(user, record.encode(ANSWER), mtime_ns)
            raise AlreadyExists("somebody was quicker")

    with DialogueJournal(Race()) as journal:
        assert journal.import_conversation("mia", f"[{HELLO.to_json()}, {ANSWER.to_json()}]", "json")
        assert journal.get_conversation("mia") == [ANSWER, HELLO]


def test_an_imported_conversation_stays_whole_until_the_next_message(journal: DialogueJournal) -> None:
    with memory() as other:
        other.add_messages("mia", number(250))
        text = other.export_conversation("mia", "json")
    assert journal.import_conversation("mia", text, "json")
    assert journal.get_conversation("mia") == number(250)
    assert journal.backend.archives("mia") == []
    journal.add_messages("mia", number(1, 300))
    assert len(journal.backend.archives("mia")) == 1
    assert journal.import_conversation("mia", text, "json") is False


def test_a_frozen_journal_takes_no_import() -> None:
    with memory() as journal:
        journal.create_user("mia")
        journal.backend.set_fence(Fence("frozen", 1))
        with pytest.raises(Fenced):
            journal.import_conversation("mia", f"[{HELLO.to_json()}]", "json")
        assert journal.get_conversation("mia") == []
