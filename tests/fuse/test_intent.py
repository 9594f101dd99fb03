"""What a thread wants that looks a name up."""

import os
import subprocess
import sys
from pathlib import Path

from potofs.fuse import intent
from tests.mounts import wait_until


def test_a_thread_that_waits_for_something_else_makes_nothing() -> None:
    """And that takes one look, for it is asked on the thread that answers everybody."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        wait_until(lambda: _number(other.pid) == b"0", "it reads")  # read(2); the same number on no other machine.
        assert not intent.may_be_making(other.pid, folder=True)
        assert not intent.may_be_making(other.pid, folder=False)
        assert not intent.is_making(other.pid, "dialogs", folder=True)
        other.communicate(b"\n")


def test_one_that_runs_may_be_making_something_and_one_that_is_gone_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            wait_until(lambda: intent.may_be_making(other.pid, folder=True), "it runs")
        finally:
            other.kill()
    assert not intent.may_be_making(0, folder=True)


def _number(thread: int) -> bytes:
    number = Path(f"/proc/{thread}/syscall").read_bytes().split()[0]
    return b"0" if os.uname().machine == "aarch64" and number == b"63" else number
