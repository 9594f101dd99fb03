"""How bytes that are written piece by piece become messages."""

import errno

import pytest

from potofs.errors import AlreadyExists, InvalidMessage, MessageTooLarge, Unreachable, WouldBlock
from potofs.journal.message import ChatMessage
from potofs.journal.record import encode
from tests.journal.generated import TIMESTAMP
from tests.journal.writers import Writer


def said(content: str) -> bytes:
    """A record."""
    return encode(ChatMessage("user", content, TIMESTAMP))


def test_a_write_stores_every_record_whose_terminator_it_brings_in_one_commit() -> None:
    writer = Writer()
    writer.write(said("one") + said("two") + said("three")[:20])
    assert writer.commits == [[said("one"), said("two")]]
    assert writer.appender.waiting == 20
    writer.write(said("three")[20:])
    assert writer.commits[1:] == [[said("three")]]
    assert not writer.appender.is_unsettled


def test_bytes_without_a_terminator_wait() -> None:
    writer = Writer()
    writer.write(said("one")[:-4])
    assert writer.commits == []
    assert writer.appender.is_unsettled


def test_a_terminator_without_its_newline_waits_for_it() -> None:
    writer = Writer()
    writer.write(said("one")[:-1])
    assert writer.commits == []
    writer.write(b"\n")
    assert writer.commits == [[said("one")]]


def test_a_line_that_only_begins_like_a_terminator_is_no_terminator() -> None:
    writer = Writer()
    writer.write(b"role: user\ncontent: |\n  x\n---")
    with pytest.raises(InvalidMessage):
        writer.write(b"-\n")
    assert writer.commits == []
    assert writer.set_aside == [b"role: user\ncontent: |\n  x\n---"]


@pytest.mark.parametrize(
    "text",
    [
        "--- {role: user, content: a}\n--- {role: user, content: b}\n---\n",
        "---\nrole: user\ncontent: a\n---\nrole: user\ncontent: b\n...\n",
        "role: user\r\ncontent: a\r\n---\r\nrole: user\r\ncontent: b\r\n---\r\n",
        '{"role":"user","content":"a"}\n---\n{"role":"user","content":"b"}\n---\n',
        "\ufeffrole: user\ncontent: a\n--- # c\n# d\n\nrole: user\ncontent: b\n--- \n",
    ],
    ids=ascii,
)
def test_records_of_other_writers_are_told_apart(text: str) -> None:
    writer = Writer()
    writer.write(text.encode())
    assert writer.contents == ["a", "b"]
    assert not writer.appender.is_unsettled
    assert all(record.endswith(b"\n---\n") for commit in writer.commits for record in commit)


def test_closing_completes_a_whole_message() -> None:
    writer = Writer()
    writer.write(b"role: user\ncontent: x\n")
    writer.flush()
    ((stored,),) = writer.commits
    assert stored.startswith(b'role: user\ncontent: x\ntimestamp: "2')
    assert stored.endswith(b'Z"\n---\n')
    assert not writer.appender.is_unsettled
    writer.flush()
    writer.close()
    assert len(writer.commits) == 1
    assert writer.set_aside == []


@pytest.mark.parametrize("end", [b"\n", b"\n---", b"\r\n"])
def test_a_tail_may_be_completed_by_its_last_line(end: bytes) -> None:
    writer = Writer()
    writer.write(b"role: user\ncontent: x" + end)
    writer.flush()
    assert writer.contents == ["x"]


def test_after_a_flush_the_handle_takes_only_a_new_record() -> None:
    """A fork closes the descriptor in the middle: what comes then is not put to what is stored."""
    writer = Writer()
    writer.write(b"role: user\ncontent: x\n")
    writer.flush()
    writer.write(b"metadata:\n  a: 1\n")
    with pytest.raises(InvalidMessage, match="the key role is missing"):
        writer.flush()
    with pytest.raises(InvalidMessage, match="the key role is missing"):
        writer.write(b"---\n")
    writer.write(said("y"))
    writer.close()
    assert writer.contents == ["x", "y"]
    assert writer.set_aside == [b"metadata:\n  a: 1\n"]


def test_the_terminator_of_a_message_that_a_flush_stored_is_nothing() -> None:
    writer = Writer()
    writer.write(b"role: user\ncontent: x\n")
    writer.flush()
    writer.write(b"---\n")
    writer.flush()
    writer.close()
    assert writer.contents == ["x"]
    assert writer.set_aside == []


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"role: user\ncontent: x", "the last line is not finished"),
        (b"role: user\n", "the key content is missing"),
        (b"# a comment\n", "nothing but comments"),
        (b'role: user\ncontent: "x\n', "end of stream"),
        (b"content: x\nrole: usr\n", "role 'usr' is unknown"),
    ],
    ids=ascii,
)
def test_an_invalid_tail_stays_waiting_at_a_flush_and_is_set_aside_at_the_close(tail: bytes, reason: str) -> None:
    writer = Writer()
    writer.write(said("before") + tail)
    for _ in range(2):
        with pytest.raises(InvalidMessage, match=reason):
            writer.flush()
        assert writer.appender.waiting == len(tail)
    writer.close()
    assert writer.commits == [[said("before")]]
    assert writer.set_aside == [tail]
    assert not writer.appender.is_unsettled


def test_a_tail_that_was_invalid_at_a_flush_can_still_be_completed() -> None:
    writer = Writer()
    writer.write(b"role: user\n")
    with pytest.raises(InvalidMessage):
        writer.flush()
    writer.write(b"content: x\n---\n")
    writer.close()
    assert writer.contents == ["x"]
    assert writer.set_aside == []


@pytest.mark.parametrize("nothing", [b"", b"\n\n", b"---\n", b"---\n...\n", b"---"])
def test_white_space_and_markers_are_neither_stored_nor_set_aside(nothing: bytes) -> None:
    writer = Writer()
    writer.write(nothing)
    writer.flush()
    assert not writer.appender.is_unsettled
    writer.write(nothing)
    writer.close()
    assert writer.commits == []
    assert writer.set_aside == []


@pytest.mark.parametrize(
    "lines",
    [
        "hello\n",
        "hello",
        "- a\n",
        "role: user\nhello\n",
        "role: user\nhello\ncontent: x\n",
        "role: user\ncontent: a: b\n",
        "role: user\nrole: user\n",
        "role: &a user\n",
        "role: !!str user\n",
        "role: usr\ncontent: hi\n",
        "content: hi\ntimestamp: soon\nrole: user\n",
        "metadata: [1]\nrole: user\n",
        "role: [user]\ncontent: x\n",
        '{"role": "usr", "content": "hi"}\n',
        '{"role": "user"}\n',
        "{role: user, content: hi, role: user}\n",
        '{"role": "user",\n}}\n',
        "role: user\ncontent: \x01\n",
        "\tx: 1\n",
    ],
    ids=ascii,
)
def test_what_no_continuation_could_mend_is_refused_at_once_on_complete_lines(lines: str) -> None:
    writer = Writer()
    if not lines.endswith("\n"):
        writer.write(lines.encode())
        assert writer.appender.waiting == len(lines)
        lines = "\n"
    with pytest.raises(InvalidMessage):
        writer.write(lines.encode())
    assert writer.commits == []
    assert writer.appender.waiting == 0


def test_bytes_that_are_no_utf_8_are_refused_on_complete_lines() -> None:
    writer = Writer()
    writer.write("role: user\ncontent: é".encode()[:-1])
    writer.write("é\n".encode()[1:])
    with pytest.raises(InvalidMessage, match="not UTF-8"):
        writer.write(b"\xff\n")


@pytest.mark.parametrize(
    "line",
    [
        b'{"role":"user","content":"x","metadata":{"\\ud83d\\ude00":1,"\\ud83d\\ude01":2}}\n',
        b'{"role":"user","content":"\\\\ud83d \\\\\\ud83d\\ude00"}\n',
        b'{"role": "user", "content": "}\\n---\\n{"}\n',
    ],
    ids=ascii,
)
def test_a_line_of_json_is_taken_and_completed_at_the_flush(line: bytes) -> None:
    writer = Writer()
    writer.write(line)
    assert writer.appender.waiting == len(line)
    writer.flush()
    assert len(writer.contents) == 1


def test_a_failed_write_stores_nothing_of_itself_and_what_waited_is_set_aside() -> None:
    writer = Writer()
    writer.write(said("stored") + b"role: user\n")
    with pytest.raises(InvalidMessage):
        writer.write(b"content: x\n---\n" + said("in the same write") + b"hello\n---\n")
    assert writer.commits == [[said("stored")]]
    assert writer.set_aside == [b"role: user\n"]
    # It ended in a terminator, so that a new record begins.
    writer.write(said("after"))
    assert writer.contents == ["stored", "after"]


def test_writes_after_a_failed_one_fail_up_to_the_next_terminator() -> None:
    writer = Writer()
    with pytest.raises(InvalidMessage):
        writer.write(b"hello\n")
    for piece in (b"role: user\n", b"content: x\n", b"-", b"-- ", b"\n"):
        with pytest.raises(InvalidMessage, match="go on after the next --- line"):
            writer.write(piece)
    writer.flush()
    writer.write(said("after"))
    writer.close()
    assert writer.contents == ["after"]
    assert writer.set_aside == []


def test_a_write_with_a_terminator_in_its_middle_does_not_end_the_skipping() -> None:
    """It fails as a whole, so that the record whose beginning is in it has a hole."""
    writer = Writer()
    with pytest.raises(InvalidMessage):
        writer.write(b"hello\n")
    with pytest.raises(InvalidMessage):
        writer.write(b"---\nrole: user\n")
    with pytest.raises(InvalidMessage):
        writer.write(b"content: x\n---\n")
    writer.write(said("after"))
    assert writer.contents == ["after"]


@pytest.mark.parametrize(
    "terminator", [b"---\n", b"...\n", b"---\r\n", b"x\r---\r", b"--- # c\n", b"---\n\n"], ids=ascii
)
def test_every_form_of_the_terminator_ends_the_skipping(terminator: bytes) -> None:
    writer = Writer()
    with pytest.raises(InvalidMessage):
        writer.write(b"hello\n")
    with pytest.raises(InvalidMessage):
        writer.write(terminator)
    writer.write(said("after"))
    assert writer.contents == ["after"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), AlreadyExists("no")], ids=repr)
def test_a_write_that_could_not_be_stored_counts_as_failed(error: Exception) -> None:
    writer = Writer()
    writer.write(b"role: user\n")
    writer.refuses = error
    with pytest.raises(type(error)):
        writer.write(b"content: x\n---\nrole: user\n")
    # Not yet: the same write may come again.
    assert writer.set_aside == []
    writer.refuses = None
    with pytest.raises(InvalidMessage, match="go on after"):
        writer.write(b"content: y\n---\n")
    writer.write(said("after"))
    assert writer.contents == ["after"]
    assert writer.set_aside == writer.in_doubt == [b"role: user\n"]


def test_a_flush_that_could_not_be_stored_keeps_the_tail() -> None:
    writer = Writer()
    writer.write(b"role: user\ncontent: x\n")
    writer.refuses = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        writer.flush()
    writer.refuses = None
    writer.flush()
    assert writer.contents == ["x"]


def test_lock_contention_changes_nothing_and_the_same_write_can_be_repeated() -> None:
    writer = Writer()
    writer.write(b"role: user\n")
    writer.contended = True
    with pytest.raises(Exception, match="holds the lock"):
        writer.write(b"content: x\n---\n" + said("y") + b"role: tool\n", wait=False)
    assert (writer.commits, writer.set_aside, writer.appender.waiting) == ([], [], 11)
    writer.write(b"content: x\n---\n" + said("y") + b"role: tool\n", wait=True)
    assert writer.contents == ["x", "y"]
    assert writer.appender.waiting == 11
    writer.write(b"content: z\n")
    with pytest.raises(Exception, match="holds the lock"):
        writer.flush(wait=False)
    assert writer.appender.waiting == 22
    writer.flush(wait=True)
    assert writer.contents == ["x", "y", "z"]
    assert writer.waited == [True, True]
    assert writer.set_aside == []


def test_a_record_may_be_as_large_as_the_limit_and_no_larger() -> None:
    writer = Writer(max_bytes=len(said("x" * 100)))
    writer.write(said("x" * 100) + said("y" * 100))
    with pytest.raises(MessageTooLarge):
        writer.write(said("x" * 101))
    assert writer.contents == ["x" * 100, "y" * 100]


def test_what_waits_may_not_grow_past_the_limit() -> None:
    writer = Writer(max_bytes=100)
    writer.write(b"role: user\ncontent: |\n" + b"  x\n" * 10)
    with pytest.raises(MessageTooLarge, match="more than 100 bytes"):
        writer.write(b"  y\n" * 20)
    assert writer.set_aside == [b"role: user\ncontent: |\n" + b"  x\n" * 10]
    with pytest.raises(InvalidMessage):
        writer.write(b"  z\n---\n")
    writer.write(said("after"))
    assert writer.contents == ["after"]


@pytest.mark.expects_warning("11 bytes that are no message could not be set aside yet: .*full")
def test_what_could_not_be_set_aside_is_tried_again_at_the_close() -> None:
    writer = Writer()
    writer.write(b"role: user\n")
    writer.refuses_to_set_aside = OSError(errno.ENOSPC, "full")
    with pytest.raises(InvalidMessage):
        writer.write(b"hello\nx: 1\n")
    assert writer.appender.is_unsettled
    writer.refuses_to_set_aside = None
    writer.close()
    assert writer.set_aside == [b"role: user\n"]
    assert not writer.appender.is_unsettled


@pytest.mark.expects_warning("could not be set aside yet")
def test_a_close_that_cannot_set_aside_says_so() -> None:
    writer = Writer()
    writer.write(b"role: user\n")
    writer.refuses_to_set_aside = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        writer.close()


def test_what_an_outage_refused_is_set_aside_after_the_next_commit() -> None:
    writer = Writer()
    writer.refuses = Unreachable("down")
    writer.write(said("one")[:-4])
    with pytest.raises(Unreachable):
        writer.write(b"---\n")
    assert writer.appender.is_unsettled
    writer.refuses = None
    # It waits for the disk, so not where nobody may wait.
    with pytest.raises(WouldBlock):
        writer.write(said("two"), wait=False)
    assert (writer.commits, writer.set_aside) == ([], [])
    writer.write(said("two"))
    assert (writer.contents, writer.set_aside) == (["two"], [said("one")[:-4]])
    assert not writer.appender.is_unsettled


@pytest.mark.expects_warning("[0-9]+ bytes that are no message are dropped: what could not be set aside before takes")
def test_however_long_an_outage_lasts_no_more_is_kept_than_there_is_room_for() -> None:
    writer = Writer()
    writer.refuses = Unreachable("down")
    piece = said("x" * 900_000)[:-4]
    for _ in range(30):
        writer.write(piece)
        with pytest.raises(Unreachable):
            writer.write(b"---\n")
    # A whole piece at the end is not lost for that.
    writer.write(said("last")[:-4])
    writer.close()
    *kept, last = writer.set_aside
    assert last == said("last")[:-4]
    assert 14 << 20 < sum(map(len, kept)) < 16 << 20
    assert not writer.appender.is_unsettled
