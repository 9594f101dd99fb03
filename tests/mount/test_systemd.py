"""Under systemd: what the daemon tells it, how it logs, and the unit file, run as systemd would."""

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounts import PATIENCE, abandon, is_mounted, mounted, processes_of, run, wait_until

SCRIPTS = Path(__file__).parents[2] / "scripts"
UNIT = SCRIPTS / "systemd/potofs@.service"
PROGRAM = SCRIPTS / "potofs"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mountpoint that nothing is left at."""
    yield tmp_path / "mnt"
    abandon(tmp_path / "mnt")


class Systemd:
    """Listens where sd_notify(3) speaks."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE)

    def hears(self) -> dict[str, str]:
        """The next word, as its lines' names and values."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def hears_until(self, name: str) -> dict[str, str]:
        while name not in (heard := self.hears()):
            pass
        return heard

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(address: str) -> Iterator[Systemd]:
    systemd = Systemd(address)
    try:
        yield systemd
    finally:
        systemd.close()


@contextmanager
def foreground(place: Path, *arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon in the foreground, with more in its environment."""
    command = [sys.executable, "-m", "potofs", "mount", str(place), "--foreground", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_says_when_it_is_ready_reloads_and_stops(root: Path, place: Path, tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@potofs-{os.getpid()}"
    with listening(address) as systemd, foreground(place, "--root", root, NOTIFY_SOCKET=address) as daemon:
        heard = systemd.hears()
        assert heard == {
            "READY": "1",
            "MAINPID": str(daemon.pid),
            "STATUS": f"file://{root} is mounted at {place}",
        }
        assert (place / "users").is_dir()
        os.kill(daemon.pid, signal.SIGHUP)
        heard = systemd.hears()
        assert heard["RELOADING"] == "1"
        assert int(heard["MONOTONIC_USEC"]) > 0
        assert systemd.hears()["READY"] == "1"
        os.kill(daemon.pid, signal.SIGTERM)
        heard = systemd.hears()
        assert (heard["STOPPING"], heard["STATUS"]) == ("1", f"unmounting {place}")
        assert daemon.wait(PATIENCE) == 0
    assert not is_mounted(place)


def test_it_is_ready_only_if_it_could_be_mounted(place: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as systemd:
        with foreground(place, "--root=/proc/nowhere", NOTIFY_SOCKET=address) as daemon:
            assert daemon.wait(PATIENCE) == 1
        systemd._socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.hears()


def test_the_watchdog_hears_of_it_as_long_as_it_answers(root: Path, place: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with (
        listening(address) as systemd,
        foreground(place, "--root", root, NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as daemon,
    ):
        for _ in range(5):
            assert systemd.hears_until("WATCHDOG") == {"WATCHDOG": "1"}
        os.kill(daemon.pid, signal.SIGTERM)
        systemd.hears_until("STOPPING")


def test_a_watchdog_of_another_process_and_a_supervisor_that_is_gone_are_nobody_s(
    root: Path, place: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with (
        listening(address) as systemd,
        foreground(place, "--root", root, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000", WATCHDOG_PID="1") as daemon,
    ):
        assert "READY" in systemd.hears()
        systemd.close()
        os.unlink(address)
        os.kill(daemon.pid, signal.SIGHUP)
        assert daemon.stderr is not None
        wait_until(lambda: "systemd could not be told RELOADING=1" in daemon.stderr.readline(), "the log says it")  # type: ignore[union-attr]
        assert (place / "users").is_dir()
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait(PATIENCE) == 0


def test_a_daemon_in_the_background_says_which_process_it_is(root: Path, place: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with pytest.MonkeyPatch.context() as environment, listening(address) as systemd:
        environment.setenv("NOTIFY_SOCKET", address)
        with mounted(root, place) as mount:
            assert systemd.hears()["MAINPID"] == str(mount.daemon)
            # What the daemon starts does not speak in its name.
            (other,) = set(processes_of(place)) - {mount.daemon}
            assert address.encode() not in Path(f"/proc/{other}/environ").read_bytes()


def test_in_the_journal_lines_have_a_priority_and_no_time(root: Path, place: Path) -> None:
    read_end, write_end = os.pipe()
    with open(read_end, encoding="utf-8") as journal:
        stream = os.fstat(read_end)
        command = [sys.executable, "-m", "potofs", "mount", str(place), "--foreground", "--root", str(root)]
        environment = {**os.environ, "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"}
        with subprocess.Popen(command, stderr=write_end, env=environment) as daemon:
            os.close(write_end)
            assert journal.readline() == f"<6>potofs.cli.mounting: file://{root} is mounted at {place}\n"
            (place / "users/mia").mkdir()
            with (
                (place / "users/mia/dialogs/current.yaml").open("ab", buffering=0) as file,
                pytest.raises(OSError, match="Invalid"),
            ):
                file.write(b"hello\n")
            assert re.fullmatch(r"<4>potofs\.fuse\.files: .*user 'mia': .*\n", journal.readline())
            os.kill(daemon.pid, signal.SIGTERM)
            assert journal.readline() == "<6>potofs.mount.daemon: SIGTERM: unmounting\n"
            assert daemon.wait(PATIENCE) == 0


def test_a_stream_that_only_inherits_the_journal_s_name_has_times(root: Path, place: Path) -> None:
    with foreground(place, "--root", root, JOURNAL_STREAM="8:1") as daemon:
        assert daemon.stderr is not None
        assert re.match(r"\d{4}-\d\d-\d\d .* INFO ", daemon.stderr.readline())
        os.kill(daemon.pid, signal.SIGTERM)


# The unit file


def unit_lines(section: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser[section])


def test_the_unit_does_what_it_says(root: Path, place: Path, tmp_path: Path) -> None:
    service = unit_lines("Service")
    assert service["Type"] == "notify"
    address = str(tmp_path / "notify")
    variables = {"POTOFS_BACKEND": f"file://{root}", "POTOFS_OPTIONS": "-o allow_other,umask=027", "MAINPID": ""}

    def command(line: str) -> list[str]:
        words: list[str] = []
        for word in shlex.split(line):
            if word.startswith("$"):
                # It becomes as many words as there are in it.
                words += shlex.split(variables[word[1:]])
            else:
                words.append({"%f": str(place), "/usr/local/bin/potofs": str(PROGRAM)}.get(word, word))
        return words

    with listening(address) as systemd:
        environment = {**os.environ, **variables, "NOTIFY_SOCKET": address}
        with subprocess.Popen(command(service["ExecStart"]), env=environment, stderr=subprocess.PIPE) as daemon:
            try:
                heard = systemd.hears()
                assert heard["MAINPID"] == str(daemon.pid), "systemd's own child"
                assert (place.stat().st_mode & 0o777, (place / "users").is_dir()) == (0o750, True)
                variables["MAINPID"] = heard["MAINPID"]
                assert subprocess.run(command(service["ExecReload"]), check=False).returncode == 0
                assert "RELOADING" in systemd.hears()
                assert "READY" in systemd.hears()
                daemon.terminate()
                assert "STOPPING" in systemd.hears()
                assert daemon.wait(PATIENCE) == 0
            finally:
                daemon.kill()
    assert not is_mounted(place)


def test_the_unit_waits_for_what_the_journal_may_lie_on_and_ends_before_that_goes() -> None:
    """systemd.special(7): file systems on a network are mounted before remote-fs.target, and after remote-fs-pre."""
    after = unit_lines("Unit")["After"].split()
    assert {"remote-fs.target", "network-online.target", "redis-server.service"} <= set(after)
    # Ordered so, it would be started while they are still being mounted.
    assert "remote-fs-pre.target" not in after


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert text.count("/usr/local/bin/potofs") == 1
    (tmp_path / UNIT.name).write_text(text.replace("/usr/local/bin/potofs", str(PROGRAM)))
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / "potofs@mnt-chats.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
