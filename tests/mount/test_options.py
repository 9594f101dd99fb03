"""What `-o` does: as mount(8) and fstab(5) know it, and a mistake is said by its name."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.errors import ConfigError
from potofs.mount import options
from potofs.mount.mountpoints import MountError
from tests.mounts import Mount, is_mounted, mounted, potofs, run, system_user

RECORD = 'role: user\ncontent: Hello\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'


def modes(mount: Mount) -> dict[str, tuple[str, int, int]]:
    """Mode, owner and group of some of each kind."""
    paths = (mount.path, mount.users, mount.users / "mia", mount.dialogs("mia"), mount.current("mia"))
    return {
        path.name.removeprefix(mount.path.name): (stat.filemode(found.st_mode), found.st_uid, found.st_gid)
        for path in paths
        for found in [path.stat()]
    }


def begin(mount: Mount) -> None:
    (mount.users / "mia").mkdir()
    with mount.current("mia").open("a") as file:
        file.write(RECORD)


def test_without_options_all_is_whose_who_mounts_it_and_nobody_else_enters(mount: Mount) -> None:
    begin(mount)
    own = (os.getuid(), os.getgid())
    assert modes(mount) == {
        "": ("drwx------", *own),
        "users": ("drwx------", *own),
        "mia": ("drwx------", *own),
        "dialogs": ("drwx------", *own),
        "current.yaml": ("-rw-------", *own),
    }
    done = system_user(65534, "ls .", mount.path)
    assert (done.returncode, done.stdout) == (2, "")


def test_owner_group_and_masks_are_as_given_and_the_kernel_goes_by_them(
    root: Path, mount_at: Callable[..., Mount]
) -> None:
    mount = mount_at(root, "-o", "allow_other,uid=nobody,gid=4242,umask=027")
    begin(mount)
    assert set(modes(mount).values()) == {("drwxr-x---", 65534, 4242), ("-rw-r-----", 65534, 4242)}
    # Their owner may do all that there is to do, their group may look, and others may not even do that.
    archive = "mv users/mia/dialogs/current.yaml users/mia/dialogs/archived/"
    assert system_user(1234, archive, mount.path, gid=4242).returncode != 0
    assert system_user(1234, "cat users/mia/dialogs/current.yaml", mount.path, gid=4242).stdout == RECORD
    assert system_user(1234, "cat users/mia/dialogs/current.yaml", mount.path, gid=1234).returncode != 0
    assert system_user(1234, "echo x >> users/mia/dialogs/current.yaml", mount.path, gid=4242).returncode != 0
    assert system_user(65534, archive, mount.path).returncode == 0
    # To what it is already, as copies do.
    os.chmod(mount.users / "mia", 0o750)
    os.chown(mount.users / "mia", 65534, 4242)
    with pytest.raises(PermissionError):
        os.chmod(mount.users / "mia", 0o700)


def test_files_and_folders_may_have_masks_of_their_own(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(root, "-o", "umask=077,fmask=0133", "-odmask=022")
    begin(mount)
    assert {shown for shown, *_ in modes(mount).values()} == {"drwxr-xr-x", "-rw-r--r--"}


def test_read_only_refuses_every_change_with_erofs(root: Path, mount_at: Callable[..., Mount]) -> None:
    begin(mount_at(root))
    mount = mount_at(root, "-o", "rw,ro")
    assert mount.current("mia").read_text() == RECORD
    current = mount.current("mia")
    changes: list[Callable[[], object]] = [
        lambda: current.open("a"),
        lambda: current.open("w"),
        lambda: current.rename(mount.archived("mia") / "x.yaml"),
        current.unlink,
        (mount.users / "noah").mkdir,
        lambda: os.utime(current),
        lambda: os.truncate(current, 0),
        lambda: os.chmod(current, 0o600),
    ]
    for change in changes:
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS
    assert current.read_text() == RECORD


def test_read_only_makes_no_journal(root: Path, tmp_path: Path) -> None:
    done = potofs("mount", tmp_path / "mnt", "--root", root, "-o", "ro")
    assert (done.returncode, done.stderr) == (1, f"potofs: there is no journal at {root}: check the path\n")
    assert not root.exists()


def test_what_the_kernel_does_itself_is_passed_on_to_it(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(root, "-o", "noexec,sync,noatime,allow_other")
    (line,) = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {mount.path} " in line]
    kernel = line.split()[3].split(",")
    assert {"rw", "nosuid", "nodev", "noexec", "sync", "noatime", "allow_other", "default_permissions"} <= set(kernel)


def test_every_option_that_is_not_refused_can_be_mounted_with(root: Path, mount_at: Callable[..., Mount]) -> None:
    """What libfuse does not know, it refuses to mount with; and which names it knows depends on how old it is."""
    words = [*options._OF_KERNEL, *options._WITHOUT_EFFECT, "allow_other", "nonempty"]
    mount = mount_at(root, "-o", ",".join([*options._OF_OTHERS, *words, "rw"]))
    begin(mount)
    assert mount.current("mia").read_text() == RECORD
    # The kernel's, one after the other, for of two that contradict each other only one is told.
    told = {word for word, stands in options._OF_KERNEL.values() if stands}
    mount = mount_at(root, "-o", ",".join(sorted(told)))
    assert mount.current("mia").read_text() == RECORD


def test_times_of_access_are_not_kept_whatever_is_asked_for(root: Path, mount_at: Callable[..., Mount]) -> None:
    for words in ("nodiratime", "atime,diratime,relatime"):
        mount = mount_at(root, "-o", words)
        (mount.users / "mia").mkdir(exist_ok=True)
        before = os.stat(mount.users / "mia")
        for _ in range(2):
            os.listdir(mount.users / "mia")
        after = os.stat(mount.users / "mia")
        assert (after.st_atime_ns, after.st_mtime_ns) == (before.st_atime_ns, before.st_mtime_ns)
        mount.finish()


def test_settings_of_the_backend_may_stand_there(root: Path, mount_at: Callable[..., Mount]) -> None:
    mount = mount_at(root, "-o", "archiveThreshold=1,fsync=never")
    begin(mount)
    assert not mount.current("mia").exists()
    assert len(os.listdir(mount.archived("mia"))) == 1


def test_log_and_nonempty_may_stand_there_as_a_mount_has_no_other_way(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    (place / "precious").touch()
    with mounted(root, place, "-o", f"nonempty,log={tmp_path}/ignored", f"--log={tmp_path}/mnt.log") as mount:
        assert mount.users.is_dir()
    assert not (tmp_path / "ignored").exists()
    done = potofs("mount", place, "--root", root, "-o", f"nonempty,log={tmp_path}/other")
    assert (done.returncode, done.stderr) == (0, "")
    assert potofs("umount", place).returncode == 0
    assert "is mounted at" in (tmp_path / "other").read_text()


def test_what_mount_and_init_act_upon_and_what_changes_nothing_is_accepted() -> None:
    words = "defaults,rw,noauto,nofail,user,user=mia,_netdev,nosuid,nodev,relatime,nostrictatime,nodiratime"
    words += ",diratime,nolazytime,x-systemd.automount"
    words += ",x-systemd.requires=redis.service,X-mount.mkdir,comment=x,auto,exec,async,,"
    assert options.parse([words]) == options.MountOptions(text=words)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("alow_other", "unknown option alow_other: did you mean allow_other?"),
        ("archivethreshold=5", "unknown option archivethreshold: did you mean archiveThreshold?"),
        ("carrier-pigeon", "unknown option carrier-pigeon: potofs mount --help names those that there are"),
        ("uid", "option uid needs a value: uid=…"),
        ("uid=", "uid=: there is no user of this name: give another, or a number"),
        ("uid=no-such-user", "uid=no-such-user: there is no user of this name: give another, or a number"),
        ("gid=no-such-group", "gid=no-such-group: there is no group of this name: give another, or a number"),
        ("uid=4294967295", "uid=4294967295: no user has this number"),
        ("gid=-1", "gid=-1: there is no group of this name: give another, or a number"),
        ("umask=8", "umask=8: a mask is an octal number up to 777, such as 027"),
        ("fmask=1777", "fmask=1777: a mask is an octal number up to 777, such as 027"),
        ("allow_other=yes", "option allow_other takes no value"),
        ("ro=1", "option ro takes no value"),
        ("log=", "log= is empty: name a file"),
        ("fsname=abc", "unknown option fsname: potofs mount --help names those that there are"),
        ("intr", "unknown option intr: potofs mount --help names those that there are"),
        ("big_writes", "unknown option big_writes: potofs mount --help names those that there are"),
        ("fsync=never,log=x,fsync=close", "option fsync is given twice, give it once"),
        ("suid", "option suid: no programs are here whose owner could count: leave it out"),
        ("dev", "option dev: no devices can be here: leave it out"),
        ("strictatime", "option strictatime: no times of access are kept here, and all others at once: leave it out"),
        ("norelatime", "option norelatime: no times of access are kept here, and all others at once: leave it out"),
        ("lazytime", "option lazytime: no times of access are kept here, and all others at once: leave it out"),
        ("remount", "option remount: unmount it, and mount it again with the other options"),
    ],
)
def test_a_mistake_is_said_by_its_name(word: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        options.parse(["rw", word])
    assert str(refused.value) == reason


def test_what_is_unknown_is_passed_over_where_mount_wishes_that() -> None:
    assert options.parse(["seclabel,ro"], sloppy=True).read_only


def test_a_mistake_is_said_before_anything_is_mounted(root: Path, tmp_path: Path) -> None:
    for word, reason in (("alow_other", "did you mean allow_other?"), ("fsync=perhaps", "fsync")):
        done = potofs("mount", tmp_path / "mnt", "--root", root, "-o", word)
        assert done.returncode == 1
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
        assert not is_mounted(tmp_path / "mnt")
    assert not root.exists()


def test_who_is_not_root_lets_others_in_only_where_root_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "fuse.conf"
    wanted = options.parse(["allow_other"])
    options.check_allowed(wanted, str(conf))
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    options.check_allowed(options.parse(["ro"]), str(conf))
    for text in (None, "#user_allow_other\n"):
        if text is not None:
            conf.write_text(text)
        with pytest.raises(MountError, match=f"only root may let other users in.* user_allow_other in {conf}"):
            options.check_allowed(wanted, str(conf))
    conf.write_text("mount_max = 10\nuser_allow_other\n")
    options.check_allowed(wanted, str(conf))


def test_somebody_who_is_not_root_mounts_for_themselves_and_is_told_who_may_allow_more(tmp_path: Path) -> None:
    """In a mount namespace in which /dev/fuse is open to all, as it is on most machines."""
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, 65534, 65534)
    os.mknod(tmp_path / "fuse", stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    os.chmod(tmp_path / "fuse", 0o666)
    script = f"""
        set -e
        cd place
        export HOME=$PWD
        unset XDG_RUNTIME_DIR
        potofs() {{ setpriv --reuid=65534 --regid=65534 --clear-groups "{sys.executable}" -m potofs "$@"; }}
        potofs mount mnt --root=journal --log=log -o allow_other && exit 9
        potofs mount /media/roots --root=journal --log=log && exit 9
        potofs mount /media/new --root=journal --log=log && exit 9
        HOME=/nonexistent potofs mount mnt --root=journal --log=log && exit 9
        potofs mount mnt --root=journal --log=log -o umask=007
        setpriv --reuid=65534 --regid=65534 --clear-groups stat -c '%U %A' mnt
        potofs umount mnt
    """
    # Whose own folders it is in, others cannot pass; what is bound here, they can.
    outer = f"""
        set -e
        mount --bind "{tmp_path}/fuse" /dev/fuse
        mount -t tmpfs -o mode=755 none /media
        mkdir /media/place /media/roots
        mount --bind "{place}" /media/place
        cd /media
        {script}
    """
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", outer],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
    )
    assert "potofs: allow_other: only root may let other users in" in done.stderr
    refused = "potofs: /media/roots is a folder of root, and only they or root can mount there: take one of yours"
    assert refused in done.stderr
    assert "potofs: /media/new cannot be made: Permission denied; name a folder that is there" in done.stderr
    assert "potofs: no word of the daemon can be left in /nonexistent/.cache/potofs/run: Permission" in done.stderr
    assert (done.returncode, done.stdout) == (0, "nobody drwxrwx---\n"), done.stderr
    assert run("pgrep", "-f", "/media/place/mnt").stdout == ""
