"""`potofs fsck`: what it prints and ends with."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from potofs import open_journal
from tests.cli.test_commands import refused, succeeded
from tests.mounts import potofs

DAMAGE = b"nonsense\n---\n"
RECORD = b'role: user\ncontent: hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'


def damaged(root: Path, *users: str) -> None:
    with open_journal(f"file://{root}") as journal:
        for user in users:
            journal.backend.put_current(user, RECORD + DAMAGE, 5)


def test_a_clean_journal_ends_with_0(root: Path) -> None:
    succeeded("append", "mia", "hello", "--root", root)
    assert succeeded("fsck", "--root", root) == "users checked: 1; wrong: 0; repaired: 0; left: 0\n"
    assert succeeded("fsck", "--repair", "--root", root).endswith("left: 0\n")


def test_damage_ends_with_4_a_repair_with_3_and_then_it_is_clean(root: Path) -> None:
    damaged(root, "mia", "noah")
    done = potofs("fsck", "--root", root)
    assert (done.returncode, done.stderr) == (4, "")
    *findings, summary = done.stdout.splitlines()
    assert summary == "users checked: 2; wrong: 2; repaired: 0; left: 2"
    assert sorted(findings) == [
        f"user '{user}', current.yaml, byte {len(RECORD)}: {len(DAMAGE)} bytes that are no message: "
        "line 1, column 1: this is not a mapping: a message has the keys role, content and timestamp"
        for user in ("mia", "noah")
    ]
    done = potofs("fsck", "mia", "--repair", "--root", root)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[0] == f"{min(findings)} (repaired)"
    assert done.stdout.splitlines()[1] == "users checked: 1; wrong: 1; repaired: 1; left: 0"
    assert succeeded("show", "mia", "--root", root).encode() == RECORD
    (aside,) = (root / "users/mia/dialogs/rejected").iterdir()
    assert aside.read_bytes() == DAMAGE
    assert potofs("fsck", "mia", "--root", root).returncode == 0
    assert potofs("fsck", "--root", root).returncode == 4, "noah's is there still"


def test_what_is_not_there_cannot_be_checked(root: Path) -> None:
    assert "no journal" in refused("fsck", "--root", root)
    succeeded("append", "mia", "hello", "--root", root)
    assert refused("fsck", "mia", "nobody", "--root", root) == "there is no user 'nobody'"


def test_a_repair_where_nothing_may_be_written_says_so(root: Path) -> None:
    damaged(root, "mia")
    with open_journal(f"file://{root}") as journal:
        journal.backend.set_fence(journal.backend.fence()._replace(state="frozen", epoch=1))
    assert "frozen" in refused("fsck", "--repair", "--root", root)
    assert potofs("fsck", "--root", root).returncode == 4


def test_on_a_terminal_it_shows_how_far_it_is(root: Path) -> None:
    damaged(root, "mia", "noah")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "potofs", "fsck", "--root", str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, check=False)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 4
    assert len(done.stdout.splitlines()) == 3
    assert re.search(r"Checking .*100%", shown, re.DOTALL), shown
