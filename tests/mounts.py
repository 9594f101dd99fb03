"""A real mount for tests, made and ended by the command line, as a user would."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from potofs.mount import probe, running

#: How long anything may take that a test waits for (seconds).
PATIENCE = 30.0

_LINE = re.compile(r"\S+ \S+ (?P<level>[A-Z]+) [\w.]+: ")


def potofs(
    *arguments: str | Path, stdin: str | bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command; its exit code, standard output and error."""
    done = subprocess.run(
        [sys.executable, "-m", "potofs", *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        cwd=cwd,
        check=False,
        timeout=60,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def run(*command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a tool; its exit code, standard output and error. LC_ALL=C, so that its messages are known."""
    return subprocess.run(
        list(map(str, command)),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=60,
    )


def shell(script: str, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, with variables set for it."""
    return subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", **{name: str(value) for name, value in variables.items()}},
        timeout=60,
    )


def system_user(uid: int, script: str, folder: Path, *, gid: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash as another system user, who need not have a name, in a folder that it is put in.

    So that it can be one in which nobody but root could go on foot.
    """
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        user=uid,
        group=uid if gid is None else gid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=60,
    )


def wait_until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> float:
    """Waits for a condition and returns how long that took (seconds); fails, saying what did not come."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        assert waited < timeout, f"after {timeout:g} s still not: {what}"
        time.sleep(0.01)
    return time.monotonic() - begun


def is_mounted(path: Path) -> bool:
    """Whether the system knows a mount at a path, dead or alive."""
    spelled = str(path).replace("\\", "\\134").replace(" ", "\\040")
    return f" {spelled} " in Path("/proc/self/mountinfo").read_text()


def processes_of(path: Path) -> list[int]:
    """The daemon and its helper that serve a mountpoint."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            # `potofs mounts`, whoever runs it, has every mount looked at by a process that is told its place.
            if os.fsencode(path) in arguments and os.fsencode(probe.__file__.rpartition("/")[2]) not in (
                os.path.basename(argument) for argument in arguments
            ):
                found.append(int(entry.name))
    return found


class Mount:
    """A mounted journal."""

    def __init__(self, where: Path | str, path: Path, options: Sequence[str] = ()) -> None:
        self.path = path
        self.log = path.with_name(f"{path.name}.log")
        #: The URL of its journal.
        self.where = f"file://{where}" if isinstance(where, Path) else where
        self._where = f"--root={where}" if isinstance(where, Path) else f"--backend={where}"
        self._options = options
        self._expected: list[str] = []
        self.start()

    @property
    def users(self) -> Path:
        return self.path / "users"

    def dialogs(self, user: str) -> Path:
        return self.users / user / "dialogs"

    def current(self, user: str) -> Path:
        return self.dialogs(user) / "current.yaml"

    def archived(self, user: str) -> Path:
        return self.dialogs(user) / "archived"

    @property
    def daemon(self) -> int:
        """The daemon's process."""
        (process,) = [
            process
            for process in processes_of(self.path)
            if b"potofs" in Path(f"/proc/{process}/cmdline").read_bytes()
            and b"fusermount3" not in Path(f"/proc/{process}/cmdline").read_bytes()
        ]
        return process

    def start(self) -> None:
        done = potofs("mount", self.path, self._where, f"--log={self.log}", *self._options)
        assert (done.returncode, done.stderr) == (0, "")

    def expect_warning(self, pattern: str) -> None:
        """Says that the daemon may warn of something, as a regular expression."""
        self._expected.append(pattern)

    def complaints(self) -> list[str]:
        """What the daemon's log has above the level of information, but for what was expected."""
        found = []
        for line in self.log.read_text().splitlines():
            match = _LINE.match(line)
            if match is None or match["level"] in {"WARNING", "ERROR", "CRITICAL"}:
                found.append(line)
        return [line for line in found if not any(re.search(pattern, line) for pattern in self._expected)]

    def kill(self) -> None:
        """Ends the daemon as the kernel would, and waits until it is gone."""
        process = self.daemon
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: not processes_of(self.path), "the daemon is gone")

    def finish(self) -> None:
        """Unmounts if that was not done, and looks for what should not be left behind."""
        if is_mounted(self.path):
            done = potofs("umount", self.path)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert not is_mounted(self.path)
        wait_until(lambda: not processes_of(self.path), f"no process serves {self.path}")
        assert self.complaints() == []


@contextmanager
def mounted(where: Path | str, path: Path, *options: str) -> Iterator[Mount]:
    """A mount of a root or a backend URL, which leaves nothing behind; a complaint in its log is an error."""
    try:
        mount = Mount(where, path, options)
        yield mount
        mount.finish()
    finally:
        abandon(path)


def abandon(path: Path) -> None:
    """Takes away whatever is left at a mountpoint, also after a failure."""
    for process in processes_of(path):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if is_mounted(path):
        run("fusermount3", "-u", "-z", "--", path)
    # One that was killed could not take its word back.
    Path(running.word_of(str(path))).unlink(missing_ok=True)


@contextmanager
def opened_to_append(path: Path) -> Iterator[int]:
    """A descriptor whose mount may be gone before it is closed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def answer_of(call: Callable[[], object]) -> tuple[str, float]:
    """What came of a call, and after how long (seconds)."""
    begun = time.monotonic()
    try:
        call()
        answer = "done"
    except OSError as error:
        answer = errno.errorcode[error.errno or 0]
    return answer, time.monotonic() - begun


def all_at_once(calls: list[Callable[[], object]]) -> list[tuple[str, float]]:
    """What comes of calls in threads of their own, as `answer_of` has it."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(answer_of, calls))
