"""The command line: what each command does, prints, and ends with."""

import json
import re
import shlex
from pathlib import Path

import pytest

from potofs import ChatMessage, __version__, open_journal
from tests.mounts import potofs, shell

NOW = r'"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'
COMMANDS = ("append", "export", "fsck", "import", "mount", "mounts", "show", "umount", "users")


def succeeded(*arguments: str | Path, stdin: str | bytes | None = None, cwd: Path | None = None) -> str:
    """Runs a command that has to succeed without a word on standard error; its output."""
    done = potofs(*arguments, stdin=stdin, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(*arguments: str | Path, stdin: str | bytes | None = None, code: int = 1) -> str:
    """Runs a command that has to be refused in one line; what follows `potofs: ` in it."""
    done = potofs(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("potofs: ")
    return lines[0].removeprefix("potofs: ")


# append and show


def test_append_takes_a_message_from_its_arguments(root: Path) -> None:
    succeeded("append", "mia", "Where is", "my order?", "--root", root)
    succeeded(
        "append", "mia", "On its way.", "--role", "assistant", "--timestamp", "2024-01-15T10:30:02Z", "--root", root
    )
    assert re.fullmatch(
        f"role: user\ncontent: Where is my order\\?\ntimestamp: {NOW}\n---\n"
        'role: assistant\ncontent: On its way.\ntimestamp: "2024-01-15T10:30:02Z"\n---\n',
        succeeded("show", "mia", "--root", root),
    )


def test_append_takes_records_from_standard_input_as_they_are(root: Path) -> None:
    text = (
        "# of the old system\nrole: user\ncontent: >\n  folded\n  text\ntimestamp: 2024-01-15T10:30:00Z\n---\n"
        '{"role": "assistant", "content": "ok", "timestamp": "2024-01-15T10:30:01Z"}\n'
    )
    succeeded("append", "mia", "--root", root, stdin=text)
    assert succeeded("show", "mia", "--root", root) == f"{text}---\n"
    # A second try adds nothing.
    succeeded("append", "mia", "--root", root, stdin=text)
    assert succeeded("show", "mia", "--root", root) == f"{text}---\n"


def test_append_stores_what_stands_before_a_mistake_and_names_its_line(root: Path) -> None:
    good = 'role: user\ncontent: "{}"\ntimestamp: "2024-01-15T10:30:00Z"\n---\n'
    many = "".join(good.format(f"{number:04d}{'x' * 990}") for number in range(90))
    reason = refused("append", "mia", "--root", root, stdin=f"{many}\nrole: user\n  content: x\n---\n{good}")
    assert reason.startswith("standard input, line 363, column 10: ")
    assert reason.endswith("(what stands before this record is stored, nothing from there on)")
    assert succeeded("show", "mia", "--root", root) == many
    assert not (root / "users/mia/dialogs/rejected").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello\n", "line 1, column 1: this is not a mapping"),
        ("role: user\n", "line 1: the key content is missing"),
        ("\n\nrole: user\ncontent: x", "line 3: the last line is not finished"),
        ("role: user\ncontent: |\n  a\n  b\x01\n", "line 4, column 4: "),
        (f"role: user\ncontent: {'x' * (1 << 20)}\n", "line 1: a message of more than 1048576 bytes"),
        (b"role: user\ncontent: \xff\n", "line 2, column 10: not UTF-8: invalid start byte"),
        ("role: user\ncontent: äö\u2028\n", "line 2, column 12: the character U+2028 is not read alike"),
    ],
)
def test_append_says_what_is_wrong_with_a_record(root: Path, text: str | bytes, reason: str) -> None:
    assert refused("append", "mia", "--root", root, stdin=text).startswith(f"standard input, {reason}")
    assert list(root.rglob("current.yaml")) == []


def test_what_would_be_gone_with_the_command_is_not_stored_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(line("mia", "one"))
    for arguments in (("append", "mia", "Hello"), ("append", "mia"), ("import", file)):
        reason = refused(*arguments, "--backend", "memory:", stdin="role: user\ncontent: a\n")
        assert reason.startswith("memory: is gone with this command: use it with mount or in a program")


def test_append_of_nothing_does_nothing(root: Path) -> None:
    for text in ("", "\n\n", "---\n"):
        assert succeeded("append", "mia", "--root", root, stdin=text) == ""
    assert list(root.rglob("current.yaml")) == []


def test_append_refuses_a_time_that_is_none(root: Path) -> None:
    reason = refused("append", "mia", "text", "--timestamp", "yesterday", "--root", root)
    assert reason == "timestamp 'yesterday' is not a time: write it like 2024-01-15T10:30:00.000Z"


def test_an_unknown_role_and_a_forgotten_text_are_usage_errors(root: Path) -> None:
    for arguments in (["mia", "text", "--role", "robot"], ["mia", "--role", "user"], []):
        done = potofs("append", *arguments, "--root", root)
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: ")
    assert not root.exists() or not list(root.rglob("*.yaml"))


def test_show_prints_the_bytes_and_lists_archives(root: Path) -> None:
    for number in range(250):
        if number % 50 == 0:
            batch = "".join(f"role: user\ncontent: n{number + i}\n---\n" for i in range(50))
            succeeded("append", "mia", "--root", root, stdin=batch)
    names = succeeded("show", "mia", "--archives", "--root", root).splitlines()
    assert len(names) == 2
    texts = [succeeded("show", "mia", "--archive", name, "--root", root) for name in names]
    texts.append(succeeded("show", "mia", "--root", root))
    assert re.findall(r"content: n(\d+)", "".join(texts)) == [str(number) for number in range(250)]


def test_show_says_whom_or_what_it_cannot_find_and_makes_nothing(root: Path, tmp_path: Path) -> None:
    assert refused("show", "mia", "--root", root) == f"there is no journal at {root}: check the path"
    assert not root.exists()
    succeeded("append", "mia", "Hello", "--root", root)
    assert refused("show", "max", "--root", root) == "there is no user 'max'"
    assert refused("show", "mia", "--archive", "none", "--root", root) == "user 'mia' has no archive 'none'"


def test_output_that_nobody_reads_to_its_end_is_no_error_worth_a_word(root: Path) -> None:
    succeeded("append", "mia", "--root", root, stdin=f"role: user\ncontent: {'x' * 900_000}\n")
    done = shell(f'"$PYTHON" -m potofs show mia --root "{root}" | head -c 10', PYTHON=python())
    assert (done.stdout, done.stderr) == ("role: user", "")


def python() -> str:
    import sys

    return sys.executable


def test_users_lists_ids_not_file_names(root: Path) -> None:
    hostile = ["a/b", "..", ".hidden", "100%", "Mia Li", "ünïcode", "-rf"]
    for user in hostile:
        succeeded("append", "--root", root, "--", user, "Hello")
    assert succeeded("users", "--root", root).splitlines() == sorted(hostile)
    assert {path.name for path in (root / "users").iterdir()} == {
        "a%2Fb", "%2E.", "%2Ehidden", "100%25", "Mia Li", "ünïcode", "-rf",
    }  # fmt: skip
    assert succeeded("show", "--root", root, "--", "..").startswith("role: user\ncontent: Hello\n")


def test_a_user_that_cannot_be_is_refused(root: Path) -> None:
    assert refused("append", "", "Hello", "--root", root).startswith("an empty name")
    assert "at most 255" in refused("append", "x" * 256, "Hello", "--root", root)


# import


def line(user: str, *contents: str, conversation: str | None = None, day: int = 1) -> str:
    messages = [
        {"role": "user", "content": content, "timestamp": f"2024-01-{day:02d}T10:00:{number:02d}.000Z"}
        for number, content in enumerate(contents)
    ]
    return json.dumps({"user": user, "conversation": conversation, "messages": messages}) + "\n"


def test_import_makes_archives_and_leaves_the_last_conversation_running(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text(line("mia", "one", conversation="refund") + line("mia", "two", day=2) + line("mia", "three", day=3))
    assert succeeded("import", file, "--root", root) == (
        "3 conversations with 3 messages imported, 0 were there already\n"
    )
    assert succeeded("show", "mia", "--archives", "--root", root) == "refund\n20240102T100000.000Z\n"
    assert "content: three\n" in succeeded("show", "mia", "--root", root)
    assert succeeded("import", file, "--root", root) == (
        "0 conversations with 0 messages imported, 3 were there already\n"
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "all.jsonl, line 2, column 2: "),
        ('{"user": "", "messages": []}', "all.jsonl, line 2, column 10: user: an empty name"),
        ('{"user": "mia", "messages": []}', "all.jsonl, line 2, column 29: a conversation without messages"),
        (
            '{"user": "mia", "messages": [{"role": "cat", "content": "", "timestamp": "2024-01-01T00:00:00Z"}]}',
            "message 1",
        ),
        ('{"user": "mia", "messages": [{"role": "user", "content": "x"}]}', "timestamp"),
    ],
)
def test_a_file_with_a_mistake_is_not_imported_at_all(root: Path, tmp_path: Path, bad: str, reason: str) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text(f"{line('mia', 'one')}{bad}\n{line('max', 'two')}")
    assert reason in refused("import", file, "--root", root)
    assert list(root.rglob("*.yaml")) == []
    assert "No such file" in refused("import", tmp_path / "none.jsonl", "--root", root)


def test_import_takes_standard_input_whatever_it_is(root: Path, tmp_path: Path) -> None:
    both = line("mia", "one") + line("max", "two")
    assert succeeded("import", "-", "--root", root, stdin=both) == (
        "2 conversations with 2 messages imported, 0 were there already\n"
    )
    reason = refused("import", "-", "--root", root, stdin=f"{both}\n[\n")
    assert reason.startswith("standard input, line 4, column 1: a conversation has to be an object, and an array")
    (tmp_path / "all.jsonl").write_text(both)
    done = shell(f'"$PYTHON" -m potofs import - --root "{root}" < "{tmp_path}/all.jsonl"', PYTHON=python())
    assert done.stdout == "0 conversations with 0 messages imported, 2 were there already\n"
    closed = shell(f'"$PYTHON" -m potofs import - --root "{root}" <&-', PYTHON=python())
    assert closed.returncode == 2
    assert "standard input is closed: name a FILE" in closed.stderr


# export


def test_export_prints_what_an_import_takes_back(root: Path) -> None:
    with open_journal(f"file://{root}") as journal:
        journal.add_messages(
            "mia",
            [
                ChatMessage("user", "yes\n=1+1 ä", "2024-01-15T10:30:00.000Z"),
                ChatMessage("tool", "", "2024-01-15T10:30:01.000Z", {"tokens": 2}, {"name": "Poto"}),
            ],
        )
        text = journal.read_bytes("mia")
        for number, form in enumerate(("json", "csv")):
            exported = potofs("export", "mia", "--format", form, "--root", root)
            assert (exported.returncode, exported.stderr) == (0, "")
            journal.import_conversation(f"max{number}", exported.stdout, form)  # type: ignore[arg-type]
            assert journal.read_bytes(f"max{number}") == text
        journal.archive_conversation("mia", "refund")
    assert succeeded("export", "mia", "--root", root) == "[]\n"
    archived = json.loads(succeeded("export", "mia", "--archive", "refund", "--root", root))
    assert [message["content"] for message in archived] == ["yes\n=1+1 ä", ""]


def test_export_says_whom_or_what_it_cannot_find_and_makes_nothing(root: Path) -> None:
    assert refused("export", "mia", "--root", root) == f"there is no journal at {root}: check the path"
    assert not root.exists()
    succeeded("append", "mia", "Hello", "--root", root)
    assert refused("export", "max", "--root", root) == "there is no user 'max'"
    assert refused("export", "mia", "--archive", "none", "--root", root) == "user 'mia' has no archive 'none'"
    assert potofs("export", "mia", "--format", "xml", "--root", root).returncode == 2


# where the journal is


def test_root_is_short_for_a_file_url(root: Path) -> None:
    succeeded("append", "mia", "Hello", "--backend", f"file://{root}?fsync=never")
    assert "Hello" in succeeded("show", "mia", "--root", root)
    done = potofs("users", "--root", root, "--backend", f"file://{root}")
    assert done.returncode == 2
    assert "give one of them" in done.stderr


def test_without_either_it_is_the_folder_data_dialogues(tmp_path: Path) -> None:
    succeeded("append", "mia", "Hello", cwd=tmp_path)
    assert (tmp_path / "data/dialogues/users/mia/dialogs/current.yaml").is_file()
    assert succeeded("users", cwd=tmp_path) == "mia\n"


def test_settings_in_the_url_are_in_force(root: Path) -> None:
    batch = "".join(f"role: user\ncontent: n{number}\n---\n" for number in range(7))
    succeeded("append", "mia", "--backend", f"file://{root}?archiveThreshold=5", stdin=batch)
    assert len(succeeded("show", "mia", "--archives", "--root", root).splitlines()) == 1
    assert "archiveThreshold" in refused("users", "--backend", f"file://{root}?archiveTreshold=5")


# help


def test_help_names_every_command_and_shows_how_it_is_used() -> None:
    top = succeeded("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", top, re.MULTILINE)
        page = succeeded(command, "-h")
        assert page.startswith("Usage: ")
        if command not in ("users", "umount"):
            assert len(page.splitlines()) > 12
    assert succeeded("--version") == f"potofs, version {__version__}\n"


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    done = potofs("mout", "./mnt")
    assert done.returncode == 2
    assert "No such command 'mout'" in done.stderr


# whoever starts it


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(root: Path, tmp_path: Path, closed: str) -> None:
    run = f'cd "{tmp_path}" && "$PYTHON" -m potofs'
    assert shell(f'{run} append mia Hello --root "{root}" {closed}', PYTHON=python()).returncode == 0
    assert shell(f'{run} show mia --root "{root}" {closed}', PYTHON=python()).returncode == 0
    try:
        done = shell(f'{run} mount mnt --root "{root}" --log log {closed}', PYTHON=python())
        assert done.returncode == 0
        assert (tmp_path / "mnt/users/mia").is_dir()
    finally:
        assert potofs("umount", tmp_path / "mnt").returncode == 0


def test_append_without_anything_to_append_says_so(root: Path) -> None:
    done = shell(f'"$PYTHON" -m potofs append mia --root "{root}" <&-', PYTHON=python())
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


def test_an_empty_place_is_nobody_s_wish(tmp_path: Path) -> None:
    """As in --root "$UNSET": the default would be somewhere else than was meant."""
    for arguments in (["users", "--root", ""], ["append", "mia", "x", "--root", ""]):
        done = potofs(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "--root is empty" in done.stderr
    assert "the mountpoint is empty" in refused("mount", "", "--root", tmp_path / "j")
    assert list(tmp_path.iterdir()) == []


def test_import_shows_its_progress_on_a_terminal(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text(line("mia", "one") + line("max", "two"))
    script = shlex.join([python(), "-m", "potofs", "import", str(file), "--root", str(root)])
    done = shell(f"script -qec {shlex.quote(script)} /dev/null < /dev/null")
    assert "Importing" in done.stdout
    assert "100%" in done.stdout
    assert "2 conversations with 2 messages imported" in done.stdout
