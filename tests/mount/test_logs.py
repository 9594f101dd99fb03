"""The log of a daemon: it keeps nobody waiting, and what could not be written is counted."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from potofs.mount import logs
from tests.mounts import abandon, is_mounted, wait_until

RECORD = b'role: user\ncontent: Hi\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'


class Stuck(logging.Handler):
    """One that writes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_free = threading.Event()
        self.is_writing = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.is_writing.set()
        self.is_free.wait()
        self.lines.append(record.getMessage())


def say(handler: logging.Handler, text: str, *arguments: object) -> None:
    handler.handle(logging.LogRecord("potofs", logging.INFO, "", 0, text, arguments, None))


def say_too_much(handler: logging.Handler, stuck: Stuck) -> None:
    """A hundred lines while the first is being written, which is free to go on then."""
    say(handler, "line %d", 0)
    stuck.is_writing.wait()
    for number in range(1, 100):
        say(handler, "line %d", number)
    stuck.is_free.set()


def test_what_cannot_be_written_is_waited_for_by_nobody_and_counted() -> None:
    stuck = Stuck()
    with logs.written_aside(stuck, waiting=10) as handler:
        say_too_much(handler, stuck)
        wait_until(lambda: len(stuck.lines) == 11, "the lines that waited are written")
        say(handler, "more")
    assert stuck.lines[:11] == [f"line {number}" for number in range(11)]
    assert re.fullmatch(r"89 lines are missing here: .*", stuck.lines[11])
    assert stuck.lines[12:] == ["more"]


def test_what_is_left_is_written_in_the_end_and_what_was_left_out_is_said() -> None:
    stuck = Stuck()
    with logs.written_aside(stuck, waiting=10) as handler:
        say_too_much(handler, stuck)
        wait_until(lambda: len(stuck.lines) > 1, "there is room for one more")
    assert stuck.lines[:11] == [f"line {number}" for number in range(11)]
    assert re.fullmatch(r"89 lines are missing here: .*", stuck.lines[11])


def test_the_end_does_not_wait_for_long() -> None:
    stuck = Stuck()
    with logs.written_aside(stuck, last=0.05) as handler:
        say(handler, "line")
    assert stuck.lines == []
    stuck.is_free.set()


def test_a_traceback_is_written_whole(tmp_path: Path) -> None:
    with logs.written_aside(logs.handler_for(str(tmp_path / "log"))) as handler:
        try:
            raise ValueError("what was wrong")
        except ValueError:
            handler.handle(logging.LogRecord("potofs", logging.ERROR, "", 0, "unexpected", None, sys.exc_info()))
    text = (tmp_path / "log").read_text()
    assert re.match(r"\S+ \S+ ERROR potofs: unexpected\nTraceback", text)
    assert text.endswith("ValueError: what was wrong\n")


def test_a_line_has_its_time_its_level_and_where_it_comes_from(tmp_path: Path) -> None:
    level = logging.getLogger().level
    try:
        with logs.logging_to(str(tmp_path / "log")):
            logging.getLogger("potofs.mount").info("%s is mounted", "mia")
    finally:
        logging.getLogger().setLevel(level)
    text = (tmp_path / "log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO potofs\.mount: mia is mounted\n", text)


@pytest.mark.parametrize("reads", [True, False], ids=["in the end it is read", "nobody ever reads it"])
def test_a_pipe_that_nobody_reads_holds_up_nobody(root: Path, tmp_path: Path, *, reads: bool) -> None:
    place = tmp_path / "mnt"
    command = [sys.executable, "-m", "potofs", "mount", str(place), f"--root={root}", "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            assert "is mounted at" in daemon.stderr.readline()
            current = place / "users/mia/dialogs/current.yaml"
            (place / "users/mia").mkdir()
            descriptor = os.open(current, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(descriptor, RECORD)
                # A pipe has room for some hundreds of such lines.
                for _ in range(3000):
                    with pytest.raises(OSError, match="Invalid argument"):
                        os.write(descriptor, b"hello\n---\n")
            finally:
                os.close(descriptor)
            assert current.stat().st_size == len(RECORD)
            daemon.send_signal(signal.SIGTERM)
            if reads:
                assert re.search(r"\d+ lines are missing here: ", daemon.stderr.read())
            assert daemon.wait(30) == 0
            assert not is_mounted(place)
        finally:
            daemon.kill()
            abandon(place)
