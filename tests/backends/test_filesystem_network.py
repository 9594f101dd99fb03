"""A journal's folder on a network file system: it is known, said, and waited for by nobody else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run

import pytest

from potofs import open_journal
from potofs.backends.base import Backend
from potofs.backends.filesystem import network
from tests.backends.kit import joined, records
from tests.mounts import Mount, abandon, is_mounted, potofs

# Lines as systems have them.
MOUNTINFO = """\
25 30 0:23 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
30 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 30 0:27 /@home /home rw,relatime shared:2 - btrfs /dev/sda3 rw,space_cache=v2,subvol=/@home
98 30 0:51 / /srv/a\\040-\\040b rw,relatime shared:50 master:7 - nfs4 10.0.0.2:/chats rw,vers=4.2,hard
99 30 0:52 / /srv/smb rw,relatime shared:51 - cifs //files/chats rw,vers=3.1.1
100 30 0:53 / /srv/ssh rw,nosuid,nodev,relatime shared:52 - fuse.sshfs files:/chats rw,user_id=0,group_id=0
101 30 8:17 / /mnt/usb rw,relatime shared:53 - fuseblk /dev/sdb1 rw,user_id=0,group_id=0
102 30 0:54 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
9 30 0:55 / /host rw,relatime - 9p hostshare rw,trans=virtio
"""


def test_the_type_of_a_mount_is_found_by_its_number() -> None:
    found = {number: network.type_of(number, MOUNTINFO) for number in ("30", "31", "98", "99", "100", "101", "9", "7")}
    assert found == {
        "30": "ext4",
        "31": "btrfs",
        "98": "nfs4",
        "99": "cifs",
        "100": "fuse.sshfs",
        "101": "fuseblk",
        "9": "9p",
        "7": "",
    }
    assert {kind for kind in found.values() if network.is_network(kind)} == {"nfs4", "cifs", "fuse.sshfs", "9p"}


def test_a_mount_of_fuse_is_one_and_a_disk_is_none(mount: Mount, tmp_path: Path) -> None:
    assert network.type_at(str(mount.users)) == "fuse.potofs"
    kind = network.type_at(str(tmp_path))
    assert kind
    assert not network.is_network(kind)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder that a program serves."""
    real, shown = tmp_path / "real", tmp_path / "shown"
    real.mkdir()
    shown.mkdir()
    run(["bindfs", str(real), str(shown)], check=True)
    try:
        yield shown
    finally:
        run(["fusermount3", "-u", str(shown)], check=True)
        assert not is_mounted(shown)


@pytest.mark.expects_warning("is on a file system of type fuse, which waits")
def test_a_journal_there_blocks_and_the_log_says_what_is_not_promised(elsewhere: Path) -> None:
    with open_journal(f"file://{elsewhere}/journal?fsync=never") as journal:
        assert journal.backend.blocks
        assert journal.backend.append_blocks
        assert journal.backend.append("mia", records(0, 3)).stored == 3
        assert journal.read_bytes("mia") == joined(records(0, 3))


@pytest.mark.expects_warning("is on a file system of type fuse, which waits")
def test_a_journal_whose_users_alone_are_there_is_one_too(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal/users").symlink_to(elsewhere)
    with open_journal(f"file://{tmp_path}/journal") as journal:
        assert journal.backend.blocks


def test_a_journal_on_a_disk_does_not_block(on_files: Callable[..., Backend]) -> None:
    assert not on_files().blocks


def test_a_mount_of_a_journal_there_works_and_its_log_says_so(elsewhere: Path, tmp_path: Path) -> None:
    place, log = tmp_path / "mnt", tmp_path / "log"
    try:
        done = potofs("mount", place, "--root", elsewhere / "journal", "--log", log)
        assert done.returncode == 0
        assert "of type fuse, " in done.stderr
        assert "WARNING potofs.backends.filesystem.network: " in log.read_text()
        (place / "users/mia").mkdir()
        current = place / "users/mia/dialogs/current.yaml"
        with current.open("ab") as file:
            file.write(joined(records(0, 3)))
        assert current.read_bytes() == joined(records(0, 3))
        assert potofs("umount", place).returncode == 0
    finally:
        abandon(place)
