"""mount(8) mounts it: by hand, from fstab, through a link in /sbin or with what fuse3 brings.

Each test has a mount namespace of its own, in which /sbin or /usr/local/bin show one more file: the machine's stay as
they are.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from potofs import ChatMessage, config, open_journal
from potofs.config import Where
from potofs.errors import ConfigError
from potofs.mount import running
from potofs.mount.source import shown, where_of
from tests import redis_servers
from tests.mounts import abandon, is_mounted, potofs

PROGRAM = Path(__file__).parents[2] / "scripts/potofs"
#: Where there is a link to the program, and its name: for mount(8) itself, or for mount.fuse3, which comes with fuse3.
WAYS = {"mount.fuse.potofs": "/usr/sbin", "potofs": "/usr/local/bin"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mountpoint that nothing is left at, and no log of it either."""
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    abandon(place)
    Path(running.log_file(str(place))).unlink(missing_ok=True)


@pytest.fixture
def filled(root: Path) -> Path:
    """The folder of a journal that has something in it."""
    with open_journal(f"file://{root}") as journal:
        journal.add_message("mia", ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z"))
    return root


def in_namespace(script: str, place: Path, way: str = "mount.fuse.potofs", **variables: str | Path) -> str:
    """What a line of bash prints that finds potofs by one of the ways; it may use $M for the mountpoint."""
    bin_folder = place.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / way).symlink_to(PROGRAM)
    # Without a layer to write to, an overlay shows both folders and changes neither.
    prepared = f'mount -t overlay none -o "lowerdir={bin_folder}:{WAYS[way]}" {WAYS[way]} || exit 99\n'
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", prepared + script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "M": str(place), **{n: str(v) for n, v in variables.items()}},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert not is_mounted(place)
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_mount_and_umount_work(filled: Path, place: Path, way: str) -> None:
    printed = in_namespace(
        """
        mount -t fuse.potofs "$J" "$M" -o noatime,allow_other,umask=022 && cat "$M/users/mia/dialogs/current.yaml" &&
        findmnt -n -o SOURCE,FSTYPE "$M" && df --output=source "$M" && stat -c %A "$M" && umount "$M" && ls -A "$M"
        """,
        place,
        way,
        J=filled,
    )
    assert printed.split("---\n")[1].splitlines() == [f"{filled} fuse.potofs", "Filesystem", str(filled), "drwxr-xr-x"]
    assert '\ncontent: Hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n' in printed


@pytest.mark.parametrize("way", WAYS)
def test_a_line_of_fstab_works_and_is_mounted_once(filled: Path, place: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "fstab").write_text(
        f"# the chats\n{filled} {place} fuse.potofs ro,nofail,user,_netdev,x-systemd.automount,archiveThreshold=0 0 0\n"
    )
    printed = in_namespace(
        """
        mount -T "$F" -a && ls "$M/users" && mount -T "$F" -a -v && mkdir "$M/users/noah"; umount -v "$M"
        grep -c " $M " /proc/self/mounts; true
        """,
        place,
        way,
        F=tmp_path / "fstab",
    )
    assert printed.splitlines()[0] == "mia"
    assert "already mounted" in printed
    assert "Read-only file system" in printed
    assert printed.splitlines()[-2:] != ["1"]


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_is_said_and_mount_ends_with_32(filled: Path, place: Path, way: str) -> None:
    printed = in_namespace(
        """
        mount -t fuse.potofs /nowhere "$M"; echo $?
        mount -t fuse.potofs "$J" "$M" -o alow_other; echo $?
        mount -t fuse.potofs "$J" "$M" -o allow_other; echo $?
        mount -t fuse.potofs "$J" "$M" -o allow_other; echo $?
        umount "$M"
        """,
        place,
        way,
        J=filled,
    )
    lines = printed.splitlines()
    assert lines[:4] == ["32", "32", "0", "32"]
    assert lines[4:] == [
        "potofs: /nowhere: there is no such folder: make it (mkdir -p), or name a backend URL or a file that holds one",
        "potofs: unknown option alow_other: did you mean allow_other?",
        f"potofs: {place} has a potofs mount already: potofs umount {place} ends it",
    ]


def test_a_password_stands_in_a_file_and_in_no_list(place: Path, tmp_path: Path) -> None:
    server = redis_servers.Server(tmp_path / "redis", requirepass="s3cret")
    try:
        url = f"redis://:s3cret@{server.place}"
        (tmp_path / "url").write_text(f"# for the chats\n\n{url}?archiveThreshold=0\n")
        (tmp_path / "url").chmod(0o600)
        printed = in_namespace(
            """
            mount -t fuse.potofs "$F" "$M" && mkdir "$M/users/mia" && cat /proc/self/mounts
            cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' ' '
            findmnt -n -o SOURCE "$M" && umount "$M"
            """,
            place,
            F=tmp_path / "url",
        )
        assert printed.splitlines()[-1].endswith(f"{tmp_path}/url")
        assert "s3cret" not in printed
        assert "s3cret" not in Path(running.log_file(str(place))).read_text()
        with open_journal(url) as journal:
            assert list(journal.users()) == ["mia"]
    finally:
        server.kill()


def test_a_source_is_a_folder_a_url_or_a_file_that_holds_one(tmp_path: Path) -> None:
    assert where_of(str(tmp_path)) == Where("file", str(tmp_path))
    assert where_of("redis://host:6379/0?fsync=x").url == "redis://host:6379/0?fsync=x"
    assert where_of("memory:").scheme == "memory"
    file = tmp_path / "url"
    file.write_text("\n # comment\n  redis://:secret@host/1  \nignored\n")
    file.chmod(0o600)
    assert where_of(str(file)).url == "redis://:secret@host/1"
    for text in ("", "# only\n", "secret@host", "secret: no URL\n", "secret:\n", b"\xff\xfe\x00"):
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(ConfigError, match=f"{file}: its first line is no backend URL") as refused:
            where_of(str(file))
        assert "secret" not in str(refused.value)
    for nothing in ("", str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="a file that holds one"):
            where_of(nothing)


@pytest.mark.expects_warning("others can read")
def test_a_password_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "url"
    for url, mode, is_warned_of in (
        ("redis://:secret@host/1", 0o600, False),
        ("redis://:secret@host/1", 0o644, True),
        ("redis://:secret@host/1", 0o640, True),
        ("redis://host/1", 0o644, False),
    ):
        file.write_text(url)
        file.chmod(mode)
        caplog.clear()
        assert where_of(str(file)).url == url
        warned = [f"{file}: others can read the password in it: chmod 600 {file}"] if is_warned_of else []
        assert caplog.messages == warned


def test_lists_of_mounts_show_a_source_as_it_was_given_unless_there_may_be_a_secret_in_it() -> None:
    for source in ("/var/lib/poto", "/etc/potofs/shop@home.url", "redis://host:6379/0?archiveThreshold=5"):
        assert shown(source, Where("file", "/x")) == source
    assert shown("redis://mia:secret@host/0", Where("redis", "mia:secret@host/0")) == "redis://mia:***@host/0"
    for options in ("token=abc", "a=abc"):
        source = f"my+db://host/0?{options}"
        assert shown(source, config.parse(source)) == "my+db://host/0"
    assert shown("my+db://host/0", config.parse("my+db://host/0")) == "my+db://host/0"
    for odd in ("/a b", "/a,b", "/ä", "/a\\b"):
        assert shown(odd, Where("file", odd)).startswith("file:///")


def test_a_mistyped_command_is_no_call_of_mount(tmp_path: Path) -> None:
    done = potofs("mout", tmp_path, "-o", "ro")
    assert done.returncode == 2
    assert "No such command 'mout'" in done.stderr
