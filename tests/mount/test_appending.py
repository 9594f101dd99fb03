"""Appending through a real mount adds messages: whatever writes, and however it cuts what it writes into pieces."""

import os
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal
from potofs.journal import reading
from tests.mounts import Mount, run, shell, wait_until


def record(content: str, second: int = 0, role: str = "user") -> str:
    return f'role: {role}\ncontent: {content}\ntimestamp: "2024-01-15T10:30:{second:02d}.000Z"\n---\n'


def contents(mount: Mount, user: str = "mia") -> list[str]:
    """What a user's running conversation says; everything in it has to be a message."""
    path = mount.current(user)
    if not path.exists():
        return []
    found = list(reading.read(path.read_bytes()))
    return [entry.content if isinstance(entry, ChatMessage) else f"damage: {entry}" for entry in found]


def rejected(mount: Mount, user: str = "mia") -> list[bytes]:
    """What was set aside, oldest first."""
    folder = mount.dialogs(user) / "rejected"
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


@pytest.fixture
def mia(mount: Mount) -> Path:
    """The conversation of a user who has said nothing yet."""
    (mount.users / "mia").mkdir()
    return mount.current("mia")


def test_a_new_user_has_folders_and_no_conversation(mount: Mount, mia: Path) -> None:
    assert os.listdir(mount.users / "mia") == ["dialogs"]
    assert os.listdir(mount.dialogs("mia")) == ["archived"]
    assert not mia.exists()
    with pytest.raises(FileNotFoundError):
        mia.read_bytes()


def test_a_write_commits_the_records_whose_terminators_it_brings_before_it_returns(mia: Path) -> None:
    with mia.open("ab", buffering=0) as file:
        file.write((record("one") + record("two", 1) + "role: user\n").encode())
        assert mia.read_text() == record("one") + record("two", 1)
        file.write(b"content: three\n")
        assert mia.read_text() == record("one") + record("two", 1)
        file.write(b'timestamp: "2024-01-15T10:30:02.000Z"\n---\n')
        assert mia.read_text() == record("one") + record("two", 1) + record("three", 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 50, 4096])
def test_the_pieces_in_which_records_are_written_make_no_difference(mount: Mount, mia: Path, size: int) -> None:
    text = "".join(record(f"message {number} ü", number) for number in range(5)).encode()
    with mia.open("ab", buffering=0) as file:
        for start in range(0, len(text), size):
            file.write(text[start : start + size])
    assert mia.read_bytes() == text
    assert rejected(mount) == []


def test_stdio_pieces_of_four_kilobytes_are_put_together(mount: Mount, mia: Path) -> None:
    said = [f"number {number} {'long ' * 900}end" for number in range(20)]
    with mia.open("a", buffering=4096) as file:
        for number, content in enumerate(said):
            file.write(record(content, number))
    assert contents(mount) == said


@pytest.mark.parametrize(
    "command",
    [
        'cat "$TEXT" >> "$CURRENT"',
        'tee -a "$CURRENT" < "$TEXT" > /dev/null',
        'dd if="$TEXT" of="$CURRENT" oflag=append conv=notrunc bs=7 status=none',
        'while IFS= read -r line; do printf "%s\\n" "$line"; done < "$TEXT" >> "$CURRENT"',
        """python3 -c 'import sys; open(sys.argv[2], "a").write(open(sys.argv[1]).read())' "$TEXT" "$CURRENT" """,
        """perl -e 'open my $f, ">>", $ARGV[0]; while (<STDIN>) { print $f $_ }' "$CURRENT" < "$TEXT" """,
        """awk -v to="$CURRENT" '{ print >> to }' "$TEXT" """,
    ],
    ids=["cat", "tee", "dd", "printf", "python", "perl", "awk"],
)
def test_whatever_appends_records_adds_messages(mount: Mount, mia: Path, tmp_path: Path, command: str) -> None:
    text = tmp_path / "text"
    text.write_text(record("one") + record("two", 1) + record("three", 2))
    done = shell(command, TEXT=text, CURRENT=mia)
    assert (done.returncode, done.stderr) == (0, "")
    assert mia.read_bytes() == text.read_bytes()


def test_closing_commits_a_last_record_without_its_terminator(mount: Mount, mia: Path) -> None:
    with mia.open("a") as file:
        file.write("role: user\ncontent: no terminator\n")
    text = mia.read_text()
    assert text.startswith("role: user\ncontent: no terminator\ntimestamp: ")
    assert text.endswith("\n---\n")
    assert contents(mount) == ["no terminator"]


def test_a_record_of_which_each_line_is_written_by_another_open_file_is_refused(mount: Mount, mia: Path) -> None:
    mount.expect_warning(": the key content is missing|are kept in rejected/")
    done = shell('/bin/echo "role: user" >> "$CURRENT"', CURRENT=mia)
    assert done.returncode == 1
    assert "write error: Invalid argument" in done.stderr
    assert contents(mount) == []
    wait_until(lambda: rejected(mount) == [b"role: user\n"], "what was refused is set aside")


def test_a_line_that_no_continuation_could_mend_fails_at_once(mount: Mount, mia: Path) -> None:
    mount.expect_warning("user 'mia': ")
    for text in ("hello\n", "- a list\n", "role: user\nrole: user\n", "role: user\ncontent: a: b\n", "&a role: user\n"):
        with mia.open("ab", buffering=0) as file, pytest.raises(OSError, match="Invalid argument"):
            file.write(text.encode())
    assert not mia.exists()
    assert rejected(mount) == []


def test_a_record_given_twice_is_stored_once(mount: Mount, mia: Path) -> None:
    for _ in range(3):
        with mia.open("a") as file:
            file.write(record("again") + record("and again", 1))
    assert contents(mount) == ["again", "and again"]
    # Archived by now, it is known all the same.
    os.rename(mia, mount.archived("mia") / "first.yaml")
    with mia.open("a") as file:
        file.write(record("again"))
    assert contents(mount) == []


def test_what_is_appended_raw_is_stored_byte_for_byte(mount: Mount, mia: Path) -> None:
    text = (
        '{"role": "user", "content": "json", "timestamp": "2024-01-15T10:30:00Z"}\n---\n'
        "# a comment\r\nrole: user\r\ncontent: >-\r\n  folded\r\n  text\r\ntimestamp: 2024-01-15T10:30:01Z\r\n---\r\n"
        "timestamp: '2024-01-15 10:30:02'\nmood: good\nrole: assistant\ncontent: yes\n...\n"
    )
    with mia.open("ab") as file:
        file.write(text.encode())
    stored = mia.read_bytes().decode()
    assert "".join(line for line in stored.splitlines(keepends=True) if line != "---\n") == "".join(
        line for line in text.splitlines(keepends=True) if line != "---\n"
    )
    assert contents(mount) == ["json", "folded text", "yes"]


def test_an_append_by_the_library_is_seen_at_once(mount: Mount, mia: Path, journal: DialogueJournal) -> None:
    with mia.open("ab", buffering=0) as file:
        file.write(record("from the mount").encode())
        with mia.open("rb", buffering=0) as reader:
            assert reader.read() == record("from the mount").encode()
            for number in range(20):
                journal.add_message("mia", ChatMessage("assistant", f"from the library {number}"))
                assert mia.stat().st_size == os.fstat(reader.fileno()).st_size
                assert reader.read().count(b"---\n") == 1
                assert run("wc", "-c", mia).stdout.split()[0] == str(mia.stat().st_size)
                assert contents(mount)[-1] == f"from the library {number}"


def test_a_handle_goes_on_in_the_new_conversation_after_an_archival(mount: Mount, mia: Path) -> None:
    with mia.open("ab", buffering=0) as file:
        file.write(record("old").encode() + b"role: user\n")
        os.rename(mia, mount.archived("mia") / "first.yaml")
        file.write(b"content: new\n---\n")
    assert contents(mount) == ["new"]
    assert (mount.archived("mia") / "first.yaml").read_text() == record("old")


def test_an_exclusive_creation_fails_where_there_is_a_conversation(mount: Mount, mia: Path) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
    descriptor = os.open(mia, flags)
    os.write(descriptor, record("first").encode())
    os.close(descriptor)
    with pytest.raises(FileExistsError):
        os.open(mia, flags)
