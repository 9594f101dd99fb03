"""Writing in other ways than by appending records: copies of conversations, scratch files, metadata.yaml."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from tests import redis_servers
from tests.mounts import Mount, run, shell

SAID = ChatMessage("user", "Where is my order?", "2024-01-15T10:30:00.000Z")
RECORD = b'role: user\ncontent: Where is my order?\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
MORE = b'role: assistant\ncontent: On its way.\ntimestamp: "2024-01-15T10:30:02.000Z"\n---\n'
WHEN = 1_700_000_000_123_456_789


@pytest.fixture(params=["files", "redis"])
def mount(request: pytest.FixtureRequest, mount_at: Callable[..., Mount], tmp_path: Path) -> Mount:
    """A mount with a user mia who has said nothing."""
    if request.param == "redis":
        mount = mount_at(f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:")
    else:
        mount = mount_at(tmp_path / "journal")
    (mount.users / "mia").mkdir()
    return mount


@pytest.fixture
def behind(mount: Mount) -> DialogueJournal:
    """The same journal as a library."""
    return open_journal(mount.where)


def raises(number: int) -> Callable[[Callable[[], object]], None]:
    def check(call: Callable[[], object]) -> None:
        with pytest.raises(OSError) as refused:
            call()
        assert errno.errorcode[refused.value.errno or 0] == errno.errorcode[number]

    return check


class TestCopies:
    def test_a_conversation_that_is_not_there_is_stored_as_it_is_written(self, mount: Mount) -> None:
        # No timestamp is added, no duplicate dropped, no torn end mended.
        copy = RECORD + RECORD + b"role: user\ncontent: no time\n---\n" + b"role: us"
        mount.current("mia").write_bytes(copy)
        assert mount.current("mia").read_bytes() == copy
        (mount.archived("mia") / "older.yaml").write_bytes(copy)
        assert (mount.archived("mia") / "older.yaml").read_bytes() == copy

    def test_nothing_is_there_for_others_before_it_is_closed(self, mount: Mount) -> None:
        with mount.current("mia").open("wb", buffering=0) as file:
            file.write(RECORD)
            assert not mount.current("mia").exists()
            assert os.fstat(file.fileno()).st_size == len(RECORD)
        assert mount.current("mia").stat().st_size == len(RECORD)

    def test_more_than_the_threshold_is_not_archived_by_itself(self, mount: Mount) -> None:
        copy = b"".join(RECORD.replace(b"order", b"order %d" % n) for n in range(250))
        mount.current("mia").write_bytes(copy)
        assert mount.current("mia").read_bytes() == copy
        assert os.listdir(mount.archived("mia")) == []

    def test_a_copy_without_any_message_is_refused_when_it_is_closed(self, mount: Mount) -> None:
        mount.expect_warning("there is no message in")
        for path in (mount.current("mia"), mount.archived("mia") / "x.yaml"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"hello\n---\n")
            raises(errno.EINVAL)(lambda: os.close(descriptor))  # noqa: B023
            assert not path.exists()

    def test_a_copy_goes_on_where_what_is_stored_ends_and_nowhere_else(
        self, mount: Mount, behind: DialogueJournal
    ) -> None:
        behind.add_message("mia", SAID)
        with mount.current("mia").open("r+b", buffering=0) as file:
            for offset in (0, len(RECORD) - 1, len(RECORD) + 1):
                raises(errno.EPERM)(lambda: os.pwrite(file.fileno(), MORE, offset))  # noqa: B023
            file.seek(0, os.SEEK_END)
            file.write(MORE[:10])
            file.write(MORE[10:])
            os.ftruncate(file.fileno(), len(RECORD + MORE))
            raises(errno.EPERM)(lambda: os.ftruncate(file.fileno(), 5))
        assert mount.current("mia").read_bytes() == RECORD + MORE
        assert [message.content for message in behind.get_conversation("mia")] == [SAID.content, "On its way."]

    def test_what_is_there_may_be_written_once_more(self, mount: Mount) -> None:
        """An interrupted `rsync --inplace` does so, and then goes on."""
        for path in (mount.current("mia"), mount.archived("mia") / "older.yaml"):
            path.write_bytes(RECORD + MORE[:20])
            with path.open("r+b", buffering=0) as file:
                file.write(RECORD[:30])
                raises(errno.EPERM)(lambda: os.pwrite(file.fileno(), b"x", 5))
                file.write(RECORD[30:] + MORE)
                assert os.pread(file.fileno(), 1 << 16, 10) == (RECORD + MORE)[10:]
                os.ftruncate(file.fileno(), len(RECORD + MORE))
            assert path.read_bytes() == RECORD + MORE

    def test_what_does_not_go_on_with_a_record_is_no_copy_of_it(self, mount: Mount, behind: DialogueJournal) -> None:
        mount.expect_warning("do not go on where")
        behind.add_message("mia", SAID)
        descriptor = os.open(mount.current("mia"), os.O_WRONLY)
        # As `rsync --append` does, which does not look at what is there.
        os.pwrite(descriptor, MORE[7:] + MORE, len(RECORD))
        raises(errno.EPERM)(lambda: os.close(descriptor))
        assert mount.current("mia").read_bytes() == RECORD

    def test_a_torn_end_that_a_copy_goes_on_with_is_whole_then(self, mount: Mount) -> None:
        mount.current("mia").write_bytes(RECORD + MORE[:30])
        with mount.current("mia").open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), MORE[30:], len(RECORD) + 30)
        assert mount.current("mia").read_bytes() == RECORD + MORE

    def test_a_copy_is_refused_when_somebody_appended_meanwhile(self, mount: Mount, behind: DialogueJournal) -> None:
        mount.expect_warning("has changed since it was compared")
        behind.add_message("mia", SAID)
        descriptor = os.open(mount.current("mia"), os.O_WRONLY)
        os.pwrite(descriptor, MORE, len(RECORD))
        behind.add_message("mia", ChatMessage("user", "Quicker", "2024-01-15T10:30:01.000Z"))
        before = mount.current("mia").read_bytes()
        raises(errno.EPERM)(lambda: os.close(descriptor))
        assert mount.current("mia").read_bytes() == before

    def test_a_copy_is_refused_when_somebody_archived_meanwhile(self, mount: Mount, behind: DialogueJournal) -> None:
        mount.expect_warning("has changed since it was compared")
        behind.add_message("mia", SAID)
        descriptor = os.open(mount.current("mia"), os.O_WRONLY)
        os.pwrite(descriptor, MORE, len(RECORD))
        behind.archive_conversation("mia", "older")
        raises(errno.EPERM)(lambda: os.close(descriptor))
        assert not mount.current("mia").exists()
        assert (mount.archived("mia") / "older.yaml").read_bytes() == RECORD

    def test_of_two_who_begin_one_conversation_the_second_to_close_is_refused(self, mount: Mount) -> None:
        mount.expect_warning("has changed since it was compared")
        one = os.open(mount.current("mia"), os.O_WRONLY | os.O_CREAT)
        two = os.open(mount.current("mia"), os.O_WRONLY | os.O_CREAT)
        os.write(one, RECORD)
        os.write(two, MORE)
        os.close(one)
        raises(errno.EPERM)(lambda: os.close(two))
        assert mount.current("mia").read_bytes() == RECORD

    def test_times_set_before_it_is_closed_are_kept(self, mount: Mount) -> None:
        for path in (mount.current("mia"), mount.archived("mia") / "older.yaml"):
            with path.open("wb", buffering=0) as file:
                file.write(RECORD)
                os.utime(file.fileno(), ns=(WHEN, WHEN))
            assert path.stat().st_mtime_ns == WHEN

    def test_an_archive_may_be_gone_on_with_but_never_changed(self, mount: Mount) -> None:
        mount.expect_warning("holds something else")
        path = mount.archived("mia") / "older.yaml"
        path.write_bytes(RECORD)
        with path.open("r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            file.write(MORE)
        assert path.read_bytes() == RECORD + MORE
        raises(errno.EPERM)(lambda: path.write_bytes(MORE))
        assert path.read_bytes() == RECORD + MORE

    def test_touch_of_what_is_not_there_begins_nothing(self, mount: Mount) -> None:
        assert run("touch", mount.current("mia")).returncode == 0
        assert not mount.current("mia").exists()

    def test_append_handles_go_on_beside_a_copy(self, mount: Mount) -> None:
        mount.current("mia").write_bytes(RECORD)
        with mount.current("mia").open("ab") as file:
            file.write(MORE)
        assert mount.current("mia").read_bytes() == RECORD + MORE


class TestScratchFiles:
    def test_they_are_files_like_others_until_they_are_removed(self, mount: Mount) -> None:
        for folder in (mount.users / "mia", mount.dialogs("mia"), mount.archived("mia")):
            path = folder / ".notes.Xy12Zz"
            path.write_bytes(b"hello")
            with path.open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"J", 0)
                os.pwrite(file.fileno(), b"!", 7)
                assert file.read() == b"Jello\0\0!"
                file.truncate(3)
            path.chmod(0o640)
            os.chown(path, 12345, 12345)
            os.utime(path, ns=(WHEN, WHEN))
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_size, found.st_mtime_ns) == (
                0o640,
                12345,
                3,
                WHEN,
            )
            assert path.name in os.listdir(folder)
            path.rename(folder / ".other")
            assert (folder / ".other").read_bytes() == b"Jel"
            with (folder / ".other").open("ab") as file:
                file.write(b"ly")
            assert (folder / ".other").read_bytes() == b"Jelly"
            (folder / ".other").unlink()
            assert ".other" not in os.listdir(folder)
            assert not (folder / ".other").exists()

    def test_one_that_is_open_can_be_read_after_it_was_removed(self, mount: Mount) -> None:
        path = mount.dialogs("mia") / ".gone"
        with path.open("w+b", buffering=0) as file:
            file.write(b"hello")
            path.unlink()
            assert os.fstat(file.fileno()).st_size == 5
            assert os.pread(file.fileno(), 10, 0) == b"hello"

    def test_they_are_gone_with_the_mount_and_not_in_the_journal(self, mount: Mount, behind: DialogueJournal) -> None:
        (mount.dialogs("mia") / ".current.yaml.swp").write_bytes(b"hello")
        assert behind.read_bytes("mia") == b""
        assert run("umount", mount.path).returncode == 0
        mount.start()
        assert os.listdir(mount.dialogs("mia")) == ["archived"]

    def test_renamed_in_place_they_become_what_they_are_called(self, mount: Mount) -> None:
        for target in (mount.current("mia"), mount.archived("mia") / "older.yaml"):
            scratch = target.with_name(f".{target.name}.Xy12Zz")
            scratch.write_bytes(RECORD + RECORD)
            os.utime(scratch, ns=(WHEN, WHEN))
            scratch.rename(target)
            assert not scratch.exists()
            assert target.read_bytes() == RECORD + RECORD
            assert target.stat().st_mtime_ns == WHEN
            assert stat.S_IMODE(target.stat().st_mode) == 0o600
            # Of what is stored already the rest is added.
            scratch.write_bytes(RECORD + RECORD + MORE)
            scratch.rename(target)
            assert target.read_bytes() == RECORD + RECORD + MORE
            # And anything else is refused.
            mount.expect_warning("holds something else")
            for other, number in ((RECORD, errno.EPERM), (MORE + RECORD, errno.EPERM), (b"hello\n", errno.EINVAL)):
                scratch.write_bytes(other)
                raises(number)(lambda: scratch.rename(target))  # noqa: B023
                assert target.read_bytes() == RECORD + RECORD + MORE
                assert scratch.read_bytes() == other
            scratch.unlink()

    def test_what_is_written_after_that_is_refused_for_it_would_be_nowhere(self, mount: Mount) -> None:
        scratch = mount.dialogs("mia") / ".current.yaml.tmp"
        with scratch.open("wb", buffering=0) as file:
            file.write(RECORD)
            scratch.rename(mount.current("mia"))
            raises(errno.EPERM)(lambda: file.write(MORE))
            raises(errno.EPERM)(lambda: os.ftruncate(file.fileno(), 0))
        assert mount.current("mia").read_bytes() == RECORD

    def test_what_is_refused_can_be_gone_on_with(self, mount: Mount) -> None:
        scratch = mount.dialogs("mia") / ".current.yaml.tmp"
        with scratch.open("wb", buffering=0) as file:
            file.write(RECORD[:20])
            raises(errno.EINVAL)(lambda: scratch.rename(mount.current("mia")))
            file.write(RECORD[20:])
            scratch.rename(mount.current("mia"))
        assert mount.current("mia").read_bytes() == RECORD

    def test_what_a_copy_has_beyond_need_not_be_a_message(self, mount: Mount) -> None:
        scratch = mount.dialogs("mia") / ".current.yaml.tmp"
        for copy in (RECORD, RECORD + b"# a comment\n", RECORD + b"# a comment\nrole: us\n---\n"):
            scratch.write_bytes(copy)
            scratch.rename(mount.current("mia"))
            assert mount.current("mia").read_bytes() == copy

    def test_one_with_a_hole_takes_no_memory(self, mount: Mount) -> None:
        def resident() -> int:
            return int(Path(f"/proc/{mount.daemon}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before = resident()
        scratch = mount.dialogs("mia") / ".hole"
        with scratch.open("wb", buffering=0) as file:
            os.pwrite(file.fileno(), b"end", 512 << 20)
            assert os.fstat(file.fileno()).st_size == (512 << 20) + 3
            os.ftruncate(file.fileno(), 600 << 20)
            raises(errno.EFBIG)(lambda: os.ftruncate(file.fileno(), 2 << 30))
        assert resident() - before < 64 << 20
        with scratch.open("rb") as reader:
            reader.seek((512 << 20) - 2)
            assert reader.read(5) == b"\0\0end"
        scratch.unlink()

    def test_emptied_they_hold_no_file_open(self, mount: Mount) -> None:
        def descriptors() -> int:
            return len(os.listdir(f"/proc/{mount.daemon}/fd"))

        before = descriptors()
        for number in range(5):
            path = mount.dialogs("mia") / f".large{number}"
            path.write_bytes(bytes((1 << 20) + 1))
            os.truncate(path, 0)
        assert descriptors() <= before

    def test_without_a_message_they_become_no_conversation(self, mount: Mount) -> None:
        scratch = mount.dialogs("mia") / ".x"
        scratch.write_bytes(b"hello\n---\n")
        raises(errno.EINVAL)(lambda: scratch.rename(mount.current("mia")))
        assert not mount.current("mia").exists()

    def test_of_another_user_they_become_nothing(self, mount: Mount) -> None:
        (mount.users / "max").mkdir()
        scratch = mount.dialogs("mia") / ".x"
        scratch.write_bytes(RECORD)
        raises(errno.EPERM)(lambda: scratch.rename(mount.current("max")))

    def test_a_conversation_never_becomes_one(self, mount: Mount) -> None:
        mount.current("mia").write_bytes(RECORD)
        raises(errno.EPERM)(lambda: mount.current("mia").rename(mount.dialogs("mia") / ".x"))
        assert mount.current("mia").read_bytes() == RECORD

    def test_a_folder_is_none(self, mount: Mount) -> None:
        raises(errno.EPERM)(lambda: (mount.dialogs("mia") / ".rsync-partial").mkdir())


class TestMetadata:
    COPY = b'userId: "mia"\ncreatedAt: "2023-05-01T00:00:00.000Z"\npreferences:\n  language: "de"\ntotalMessages: 17\n'

    def test_what_is_stored_of_it_is_taken_over_and_the_rest_reckoned(self, mount: Mount) -> None:
        path = mount.users / "mia/metadata.yaml"
        scratch = mount.users / "mia/.metadata.yaml.Xy12Zz"

        def by_renaming() -> None:
            scratch.write_bytes(self.COPY)
            os.utime(scratch, ns=(WHEN, WHEN))
            scratch.rename(path)

        def in_place() -> None:
            with path.open("wb", buffering=0) as file:
                file.write(self.COPY)
                os.utime(file.fileno(), ns=(WHEN, WHEN))

        for write in (by_renaming, in_place):
            write()
            shown = path.read_text()
            assert 'createdAt: "2023-05-01T00:00:00.000Z"\n' in shown
            assert 'language: "de"' in shown
            assert "totalMessages: 0\n" in shown
            assert path.stat().st_mtime_ns == WHEN

    @pytest.mark.parametrize(
        "copy",
        [b"a: b\n", b'userId: "max"\n', b"hello\n", b"createdAt: yesterday\n", b"preferences: 5\n", b"\xff\n", b""],
    )
    def test_what_is_no_metadata_changes_nothing(self, mount: Mount, copy: bytes) -> None:
        mount.expect_warning("what is known of a user of user")
        path, scratch = mount.users / "mia/metadata.yaml", mount.users / "mia/.x"
        assert not path.exists(), "nothing is known of mia yet"
        path.write_bytes(self.COPY)
        before = path.read_bytes()
        scratch.write_bytes(copy)
        raises(errno.EINVAL)(lambda: scratch.rename(path))
        raises(errno.EINVAL)(lambda: path.write_bytes(copy)) if copy else None
        assert path.read_bytes() == before

    def test_what_is_no_metadata_as_it_is_stored_is_kept_when_it_is_written_over(
        self, mount: Mount, behind: DialogueJournal
    ) -> None:
        mount.expect_warning("damaged|are kept in rejected")
        behind.backend.put_profile("mia", b"mine: [precious\n", WHEN)
        (mount.users / "mia/metadata.yaml").write_bytes(self.COPY)
        (aside,) = behind.backend.set_asides("mia")
        with behind.backend.open_set_aside("mia", aside.name) as reader:
            assert reader.read_all() == b"mine: [precious\n"

    def test_keys_of_other_programs_stay(self, mount: Mount, behind: DialogueJournal) -> None:
        behind.backend.put_profile("mia", b"userId: mia\nnickname: M\n", WHEN)
        (mount.users / "mia/metadata.yaml").write_bytes(self.COPY)
        assert b'nickname: "M"' in behind.backend.read_profile("mia") or b"nickname: M" in behind.backend.read_profile(
            "mia"
        )

    def test_it_has_a_size_that_nobody_needs_to_wait_for(self, mount: Mount) -> None:
        path = mount.users / "mia/metadata.yaml"
        path.write_bytes(self.COPY)
        before = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            raises(errno.EFBIG)(lambda: os.pwrite(file.fileno(), b"#", 2 << 20))
            raises(errno.EFBIG)(lambda: os.ftruncate(file.fileno(), 2 << 20))
        assert path.read_bytes() == before

    def test_nobody_cuts_off_what_somebody_else_writes(self, mount: Mount) -> None:
        path = mount.users / "mia/metadata.yaml"
        path.write_bytes(self.COPY)
        with path.open("wb", buffering=0) as file:
            file.write(self.COPY.replace(b"de", b"fr"))
            raises(errno.EPERM)(lambda: os.truncate(path, 0))
        assert b'language: "fr"' in path.read_bytes()

    def test_a_shell_is_told_at_once(self, mount: Mount) -> None:
        mount.expect_warning("what is known of a user of user")
        done = shell('echo "a: b" > "$FILE"', FILE=mount.users / "mia/metadata.yaml")
        assert done.returncode != 0
        assert "Invalid argument" in done.stderr


class TestRejected:
    def test_a_folder_for_them_can_be_made_to_copy_into(self, mount: Mount) -> None:
        folder = mount.dialogs("mia") / "rejected"
        assert not folder.exists()
        folder.mkdir()
        assert os.listdir(folder) == []
        (folder / "20240101T000000.000Z.yaml").write_bytes(b"hello")
        scratch = folder / ".20240102T000000.000Z.yaml.Xy12Zz"
        scratch.write_bytes(b"hallo")
        os.utime(scratch, ns=(WHEN, WHEN))
        scratch.rename(folder / "20240102T000000.000Z.yaml")
        assert sorted(os.listdir(folder)) == ["20240101T000000.000Z.yaml", "20240102T000000.000Z.yaml"]
        assert (folder / "20240102T000000.000Z.yaml").stat().st_mtime_ns == WHEN
        # They stay as they are, and may be removed.
        raises(errno.EPERM)(lambda: (folder / "20240101T000000.000Z.yaml").write_bytes(b"other"))
        for path in folder.iterdir():
            path.unlink()
        assert not folder.exists()

    def test_an_empty_one_may_be_removed_again(self, mount: Mount) -> None:
        folder = mount.dialogs("mia") / "rejected"
        folder.mkdir()
        folder.rmdir()
        assert not folder.exists()


class TestRenaming:
    def test_an_archive_is_restored_by_moving_it_back(self, mount: Mount, behind: DialogueJournal) -> None:
        (mount.archived("mia") / "older.yaml").write_bytes(RECORD)
        inode = (mount.archived("mia") / "older.yaml").stat().st_ino
        assert run("mv", mount.archived("mia") / "older.yaml", mount.current("mia")).returncode == 0
        assert mount.current("mia").read_bytes() == RECORD
        assert mount.current("mia").stat().st_ino == inode
        assert os.listdir(mount.archived("mia")) == []

    def test_what_is_running_is_archived_first(self, mount: Mount, behind: DialogueJournal) -> None:
        (mount.archived("mia") / "older.yaml").write_bytes(RECORD)
        mount.current("mia").write_bytes(MORE)
        running = mount.current("mia").stat().st_ino
        with mount.current("mia").open("rb") as reader:
            assert run("mv", mount.archived("mia") / "older.yaml", mount.current("mia")).returncode == 0
            assert reader.read() == MORE
            assert os.fstat(reader.fileno()).st_ino == running
        assert mount.current("mia").read_bytes() == RECORD
        (name,) = os.listdir(mount.archived("mia"))
        assert (mount.archived("mia") / name).read_bytes() == MORE
        assert (mount.archived("mia") / name).stat().st_ino == running

    def test_not_if_it_may_replace_nothing(self, mount: Mount) -> None:
        (mount.archived("mia") / "older.yaml").write_bytes(RECORD)
        mount.current("mia").write_bytes(MORE)
        raises(errno.EEXIST)(
            lambda: renameat2(mount.archived("mia") / "older.yaml", mount.current("mia"), RENAME_NOREPLACE)
        )
        assert mount.current("mia").read_bytes() == MORE

    def test_names_are_never_exchanged(self, mount: Mount) -> None:
        (mount.archived("mia") / "older.yaml").write_bytes(RECORD)
        mount.current("mia").write_bytes(MORE)
        for flags in (RENAME_EXCHANGE, RENAME_WHITEOUT):
            raises(errno.EINVAL)(
                lambda: renameat2(mount.archived("mia") / "older.yaml", mount.current("mia"), flags)  # noqa: B023
            )
        assert mount.current("mia").read_bytes() == MORE

    def test_an_archive_gets_another_name_but_none_that_is_taken(self, mount: Mount) -> None:
        one, two = mount.archived("mia") / "one.yaml", mount.archived("mia") / "two.yaml"
        one.write_bytes(RECORD)
        two.write_bytes(MORE)
        inode = one.stat().st_ino
        raises(errno.EEXIST)(lambda: one.rename(two))
        three = one.rename(mount.archived("mia") / "three.yaml")
        assert (three.read_bytes(), three.stat().st_ino) == (RECORD, inode)
        assert sorted(os.listdir(mount.archived("mia"))) == ["three.yaml", "two.yaml"]
        for target in (mount.archived("mia") / "current.yaml", mount.archived("mia") / "x.txt"):
            raises(errno.EPERM)(lambda: three.rename(target))  # noqa: B023


RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python does not have."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
