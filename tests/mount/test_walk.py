"""What a user does on the first day, on a real mount of real conversations, with the tools that everybody has."""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potofs import ChatMessage, DialogueJournal
from tests import samples
from tests.mounts import Mount, potofs, run, shell, wait_until


@pytest.fixture
def spoken(conversations: Path) -> list[dict[str, Any]]:
    """The conversations as their source has them."""
    return samples.load(conversations)


@pytest.fixture
def walked(root: Path, conversations: Path, mount_at: Callable[..., Mount]) -> Mount:
    """A mount of the conversations."""
    done = potofs("import", conversations, "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    return mount_at(root)


def newest_of(spoken: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By user, the conversation that stays the running one: the last in the file."""
    return {conversation["user"]: conversation for conversation in spoken}


def test_import_says_what_it_did_and_a_second_one_changes_nothing(
    root: Path, conversations: Path, spoken: list[dict[str, Any]]
) -> None:
    messages = sum(len(conversation["messages"]) for conversation in spoken)
    first = potofs("import", conversations, "--root", root)
    assert first.stdout == (f"{len(spoken)} conversations with {messages} messages imported, 0 were there already\n")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    second = potofs("import", conversations, "--root", root)
    assert second.stdout == f"0 conversations with 0 messages imported, {len(spoken)} were there already\n"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_ls_shows_every_user_and_every_archive(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    assert run("ls", walked.users).stdout.split() == sorted(newest_of(spoken))
    conversations = Counter(conversation["user"] for conversation in spoken)
    for user, count in conversations.items():
        assert run("ls", walked.users / user).stdout.split() == ["dialogs", "metadata.yaml"]
        assert run("ls", walked.dialogs(user)).stdout.split() == ["archived", "current.yaml"]
        assert len(run("ls", walked.archived(user)).stdout.split()) == count - 1


def test_ls_l_agrees_with_wc_and_cat(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    for user in newest_of(spoken):
        size = len(walked.current(user).read_bytes())
        assert int(run("wc", "-c", walked.current(user)).stdout.split()[0]) == size
        assert walked.current(user).stat().st_size == size


def test_cat_shows_what_the_library_reads_and_what_is_on_disk(
    walked: Mount, root: Path, spoken: list[dict[str, Any]]
) -> None:
    for user in newest_of(spoken):
        shown = subprocess.run(["cat", walked.current(user)], capture_output=True, check=True).stdout
        assert shown == (root / "users" / user / "dialogs/current.yaml").read_bytes()
    assert shown == potofs("show", user, "--root", root).stdout.encode()


def test_grep_counts_what_was_said(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    messages = [message for conversation in spoken for message in conversation["messages"]]
    for role in ("user", "assistant", "tool"):
        expected = sum(message["role"] == role for message in messages)
        counted = shell('grep -rh "^role: $ROLE$" "$USERS" | wc -l', USERS=walked.users, ROLE=role)
        assert int(counted.stdout) == expected
    # Words, as somebody would look for them: found wherever they were said, in metadata or between line breaks.
    said = "\n".join(f"{message['content']}\n{json.dumps(message['metadata'])}" for message in messages)
    for word in ("flight", "reservation", "Thank you", "passenger"):
        found = shell('grep -roh --include=*.yaml -- "$WORD" "$USERS"/*/dialogs | wc -l', USERS=walked.users, WORD=word)
        assert int(found.stdout) == said.count(word)


def test_tail_shows_the_last_messages(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    for user, conversation in newest_of(spoken).items():
        text = walked.current(user).read_text()
        assert run("tail", "-n", "7", walked.current(user)).stdout == "".join(text.splitlines(keepends=True)[-7:])
        assert conversation["messages"][-1]["timestamp"] in run("tail", "-n", "5", walked.current(user)).stdout


def test_a_message_is_appended_with_echo_and_with_a_heredoc(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    user = spoken[0]["user"]
    before = walked.current(user).read_text()
    done = shell(
        """printf 'role: user\\ncontent: One more thing\\n---\\n' >> "$CURRENT"
cat >> "$CURRENT" <<END
role: assistant
content: |-
  Of course:
  what is it?
timestamp: "2024-06-01T10:00:00.000Z"
END""",
        CURRENT=walked.current(user),
    )
    assert (done.returncode, done.stderr) == (0, "")
    after = walked.current(user).read_text()
    assert after.startswith(before)
    assert re.fullmatch(
        r'role: user\ncontent: One more thing\ntimestamp: "20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\n---\n'
        r"role: assistant\ncontent: \|-\n  Of course:\n  what is it\?\n"
        r'timestamp: "2024-06-01T10:00:00\.000Z"\n---\n',
        after[len(before) :],
    )


def test_tail_f_sees_an_append_within_two_seconds(walked: Mount, root: Path, spoken: list[dict[str, Any]]) -> None:
    user = spoken[0]["user"]
    with subprocess.Popen(
        ["tail", "-n", "1", "-F", walked.current(user)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tail:
        try:
            assert tail.stdout is not None
            assert tail.stdout.readline() == "---\n"
            # By a program that knows nothing of the mount.
            assert potofs("append", user, "Anybody there?", "--root", root).returncode == 0
            lines: list[str] = []

            def follow() -> bool:
                assert tail.stdout is not None
                lines.append(tail.stdout.readline())
                return lines[-1] == "content: Anybody there?\n"

            assert wait_until(follow, "tail -F shows the append") < 2
        finally:
            tail.kill()


def test_moving_current_yaml_into_archived_archives_it(walked: Mount, spoken: list[dict[str, Any]]) -> None:
    user = spoken[0]["user"]
    said = walked.current(user).read_bytes()
    before = set(walked.archived(user).iterdir())
    assert run("mv", walked.current(user), f"{walked.archived(user)}/").returncode == 0
    assert not walked.current(user).exists()
    (archive,) = set(walked.archived(user).iterdir()) - before
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z\.yaml", archive.name)
    assert archive.read_bytes() == said
    # And what is said next begins a new conversation.
    assert shell('printf "role: user\\ncontent: Hi\\n" >> "$CURRENT"', CURRENT=walked.current(user)).returncode == 0
    assert walked.current(user).read_text().startswith("role: user\ncontent: Hi\n")


def test_rsync_copies_everything_and_the_second_time_nothing(walked: Mount, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    first = run("rsync", "-a", "--stats", f"{walked.users}/", f"{copy}/")
    assert (first.returncode, first.stderr) == (0, "")
    second = run("rsync", "-a", "--stats", "--itemize-changes", f"{walked.users}/", f"{copy}/")
    assert second.returncode == 0
    assert "Number of regular files transferred: 0" in second.stdout
    # Not even a time that has changed.
    assert second.stdout.startswith("\n"), second.stdout
    assert run("diff", "-r", walked.users, copy).stdout == ""
    assert run("rsync", "-a", "--checksum", "--itemize-changes", f"{walked.users}/", f"{copy}/").stdout == ""


def test_a_backup_copied_back_is_the_journal_again(
    walked: Mount, tmp_path: Path, mount_at: Callable[..., Mount]
) -> None:
    (tmp_path / "restored").mkdir()
    assert run("rsync", "-a", f"{walked.users}/", f"{tmp_path}/restored/users/").returncode == 0
    again = mount_at(tmp_path / "restored")
    assert run("diff", "-r", walked.users, again.users).stdout == ""
    assert run("rsync", "-a", "--itemize-changes", f"{walked.users}/", f"{tmp_path}/restored/users/").stdout == ""


def test_df_and_find_and_tar_work(walked: Mount, tmp_path: Path, spoken: list[dict[str, Any]]) -> None:
    assert run("df", walked.path).returncode == 0
    found = run("find", walked.users, "-name", "*.yaml", "-path", "*/dialogs/*").stdout.split()
    assert len(found) == len(spoken)
    assert run("tar", "-C", walked.path, "-cf", tmp_path / "all.tar", "users").returncode == 0
    assert run("tar", "-C", walked.path, "--compare", "-f", tmp_path / "all.tar").stdout == ""


def test_metadata_has_as_many_bytes_as_it_said_to_who_reads_it_then(mount: Mount, journal: DialogueJournal) -> None:
    """As rsync does, which opens a file, asks for its size, and takes it for damaged if it is shorter."""
    for number in range(9):
        journal.add_message("mia", ChatMessage("user", f"number {number}"))
    with (mount.users / "mia/metadata.yaml").open("rb", buffering=0) as one, open(one.name, "rb", buffering=0) as begun:
        before = begun.read(10)
        # Its count has a digit more now.
        journal.add_message("mia", ChatMessage("user", "number 9"))
        size = os.fstat(one.fileno()).st_size
        data = one.read()
        assert (len(data), b"totalMessages: 10\n" in data) == (size, True)
        # Whoever has begun reads on in what it began.
        assert b"totalMessages: 9\n" in before + begun.read()
