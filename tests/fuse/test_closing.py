"""What the close of a descriptor means, as the threads of whoever opened the file tell."""

import os
import platform
import threading

import pytest
import trio

from potofs.fuse import closing
from potofs.fuse import threads as threads_of_others
from potofs.fuse.closing import Closed, Openers
from tests.mounts import run, wait_until

READ = {"x86_64": 0, "aarch64": 63}


def test_a_thread_that_ends_meanwhile_does_not_hide_the_one_that_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands for one here that waits in another call, and for this process, which has opened no conversation."""
    machine = platform.machine()
    monkeypatch.setattr(closing, "_CLOSING", {machine: frozenset({READ[machine]})})
    end, other_end = os.pipe()
    closer = threading.Thread(target=os.read, args=(end, 1))
    closer.start()
    try:
        wait_until(lambda: threads_of_others.present_call(closer.native_id or 0) is not None, "it waits")
        ended = int(run("sh", "-c", "echo $$").stdout)
        all_threads = threads_of_others.threads
        monkeypatch.setattr(threads_of_others, "threads", lambda process: [ended, *all_threads(process)])
        assert trio.run(Openers(trio.to_thread.run_sync).opened(7, os.getpid()).closed) is Closed.DONE
    finally:
        os.write(other_end, b"x")
        closer.join()
        os.close(end)
        os.close(other_end)
