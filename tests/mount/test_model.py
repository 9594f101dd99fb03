"""A mount against the plainest model of one: file system calls, library calls behind its back, and the same seen after
every step.
"""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Capability
from potofs.journal import admission
from tests import redis_servers
from tests.mounts import Mount, mounted, run

THRESHOLD = 6

_users = st.integers(0, 1)
_numbers = st.integers(0, 12)
_archive_names = st.sampled_from(["refund", "%2E.", "a%2Fb", "Grüße"])
_counts = st.integers(1, 8)


def message(number: int) -> ChatMessage:
    return ChatMessage("user", f"message {number}\nof two lines", f"2024-01-15T10:00:{number:02d}.000Z")


def record(number: int) -> bytes:
    return admission.from_message(message(number)).data


class _User:
    """What a user should have: numbers of messages, in order, under the names of files."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.current: list[int] = []
        self.archives: dict[str, list[int]] = {}
        self.inode: int | None = None
        #: Somebody has the running conversation open to append, and has written so much of a record to it.
        self.writer: IO[bytes] | None = None
        self.begun: tuple[int, int] | None = None
        #: Somebody has opened it to read, when it was this.
        self.reader: IO[bytes] | None = None
        self.seen: list[int] = []


def joined(numbers: list[int]) -> bytes:
    return b"".join(map(record, numbers))


class _Steps(RuleBasedStateMachine):
    """What is done to both."""

    def __init__(self, mount: Mount, journal: DialogueJournal | None, names: Iterator[str]) -> None:
        super().__init__()
        self.mount, self.journal = mount, journal
        self.users = [_User(next(names)), _User(next(names))]
        for user in self.users:
            (mount.users / user.name).mkdir()
        self.archival = mount.archived(self.users[0].name).exists()

    def teardown(self) -> None:
        for user in self.users:
            if user.writer is not None:
                # A record that is not finished goes to rejected/.
                with suppress(OSError) if user.begun else nullcontext():
                    user.writer.close()
            if user.reader is not None:
                user.reader.close()
        if self.journal is not None:
            assert list(self.journal.fsck([user.name for user in self.users])) == []

    # What each user's step may find

    def known(self, user: _User) -> set[int]:
        """Messages that are not stored once more."""
        folder = self.mount.archived(user.name)
        newest = max(user.archives, key=lambda name: (_mtime(folder / name), _decoded(name)), default=None)
        return {*user.current, *(user.archives[newest] if newest else ())}

    def said(self, user: _User, numbers: list[int]) -> None:
        """Messages were appended, in one append."""
        known = self.known(user)
        for number in numbers:
            if number not in known:
                user.current.append(number)
                known.add(number)
        if self.archival and len(user.current) >= THRESHOLD:
            self.has_become_an_archive(user)

    def has_become_an_archive(self, user: _User) -> None:
        """Under a name that the time gives."""
        (name,) = set(os.listdir(self.mount.archived(user.name))) - user.archives.keys()
        user.archives[name], user.current, user.inode = user.current, [], None

    # Appending

    @rule(at=_users, numbers=st.lists(_numbers, min_size=1, max_size=8))
    def append(self, at: int, numbers: list[int]) -> None:
        user = self.users[at]
        with self.mount.current(user.name).open("ab", buffering=0) as file:
            file.write(joined(numbers))
        self.said(user, numbers)

    @rule(at=_users, numbers=st.lists(_numbers, min_size=1, max_size=8))
    def append_behind_its_back(self, at: int, numbers: list[int]) -> None:
        user = self.users[at]
        if self.journal is not None:
            self.journal.add_messages(user.name, map(message, numbers))
            self.said(user, numbers)

    @rule(at=_users, number=_numbers, size=st.integers(1, 60))
    def write_a_piece(self, at: int, number: int, size: int) -> None:
        user = self.users[at]
        if user.writer is None:
            user.writer = self.mount.current(user.name).open("ab", buffering=0)
        if user.begun is None:
            user.begun = (number, 0)
        number, start = user.begun
        piece = record(number)[start : start + size]
        user.writer.write(piece)
        user.begun = (number, start + len(piece))
        if start + len(piece) == len(record(number)):
            user.begun = None
            self.said(user, [number])

    @precondition(lambda self: any(user.writer for user in self.users))
    @rule(at=_users)
    def finish_writing(self, at: int) -> None:
        user = self.users[at]
        if user.writer is not None:
            if user.begun is not None:
                number, start = user.begun
                user.writer.write(record(number)[start:])
                self.said(user, [number])
            user.writer.close()
            user.writer = user.begun = None

    @rule(at=_users)
    def append_what_is_no_message(self, at: int) -> None:
        user = self.users[at]
        with self.mount.current(user.name).open("ab", buffering=0) as file, _raises(errno.EINVAL):
            file.write(b"hello\n")

    # Archives

    @precondition(lambda self: self.archival)
    @rule(at=_users, name=st.none() | _archive_names, behind=st.booleans())
    def archive(self, at: int, name: str | None, behind: bool) -> None:
        user = self.users[at]
        target = self.mount.archived(user.name) / f"{name or 'current'}.yaml"
        if not user.current:
            with _raises(errno.ENOENT):
                self.mount.current(user.name).rename(target)
        elif name is not None and f"{name}.yaml" in user.archives:
            with _raises(errno.EEXIST):
                self.mount.current(user.name).rename(target)
        elif behind and self.journal is not None:
            self.journal.archive_conversation(user.name, None if name is None else _decoded(f"{name}.yaml"))
            self.has_become_an_archive(user)
        else:
            self.mount.current(user.name).rename(target)
            self.has_become_an_archive(user)

    @precondition(lambda self: self.archival)
    @rule(at=_users, data=st.data(), behind=st.booleans())
    def restore(self, at: int, data: st.DataObject, behind: bool) -> None:
        user = self.users[at]
        if not user.archives:
            return
        name = data.draw(st.sampled_from(sorted(user.archives)))
        path = self.mount.archived(user.name) / name
        inode = path.stat().st_ino
        if behind and self.journal is not None:
            self.journal.restore_conversation(user.name, _decoded(name))
        else:
            path.rename(self.mount.current(user.name))
        restored = user.archives.pop(name)
        if user.current:
            self.has_become_an_archive(user)
        user.current, user.inode = restored, inode

    @precondition(lambda self: self.archival)
    @rule(at=_users, new=_archive_names, data=st.data())
    def rename_archive(self, at: int, new: str, data: st.DataObject) -> None:
        user = self.users[at]
        if not user.archives:
            return
        folder = self.mount.archived(user.name)
        name, target = data.draw(st.sampled_from(sorted(user.archives))), f"{new}.yaml"
        if target in user.archives and target != name:
            with _raises(errno.EEXIST):
                (folder / name).rename(folder / target)
        else:
            (folder / name).rename(folder / target)
            user.archives[target] = user.archives.pop(name)

    # Copies

    @rule(at=_users, first=_numbers, count=_counts, through=st.sampled_from(["rename", "write"]))
    def copy_current(self, at: int, first: int, count: int, through: str) -> None:
        user, copied = self.users[at], list(range(first, first + count))
        path = self.mount.current(user.name)
        fits = copied[: len(user.current)] == user.current
        if through == "write":
            with path.open("r+b" if user.current else "wb", buffering=0) as file:
                if fits:
                    file.seek(len(joined(user.current)))
                    file.write(joined(copied[len(user.current) :]))
                elif user.current[: len(copied)] == copied:
                    # What is there may be said once more.
                    os.pwrite(file.fileno(), joined(copied), 0)
                else:
                    with _raises(errno.EPERM):
                        os.pwrite(file.fileno(), joined(copied), 0)
        else:
            scratch = path.with_name(".current.yaml.Xy12Zz")
            scratch.write_bytes(joined(copied))
            if fits:
                scratch.rename(path)
            else:
                with _raises(errno.EPERM):
                    scratch.rename(path)
                scratch.unlink()
        if fits:
            user.current = copied

    @precondition(lambda self: self.archival)
    @rule(at=_users, name=_archive_names, first=_numbers, count=_counts, through=st.sampled_from(["rename", "write"]))
    def copy_archive(self, at: int, name: str, first: int, count: int, through: str) -> None:
        user, copied = self.users[at], list(range(first, first + count))
        path = self.mount.archived(user.name) / f"{name}.yaml"
        held = user.archives.get(path.name, [])
        fits = copied[: len(held)] == held
        if through == "rename" or held:
            scratch = path.with_name(".copy")
            scratch.write_bytes(joined(copied))
            if fits:
                scratch.rename(path)
            else:
                with _raises(errno.EPERM):
                    scratch.rename(path)
                scratch.unlink()
        else:
            path.write_bytes(joined(copied))
        if fits:
            user.archives[path.name] = copied

    @rule(at=_users, when=st.integers(1, 20), data=st.data())
    def set_times(self, at: int, when: int, data: st.DataObject) -> None:
        user = self.users[at]
        folder = self.mount.archived(user.name)
        paths = [*(folder / name for name in sorted(user.archives))]
        paths += [self.mount.current(user.name)] if user.current else []
        if paths:
            path = data.draw(st.sampled_from(paths))
            os.utime(path, ns=(when * 10**17 + 1, when * 10**17 + 1))
            assert path.stat().st_mtime_ns == when * 10**17 + 1

    # What is refused

    @rule(
        at=_users,
        call=st.sampled_from(
            [
                lambda path: os.truncate(path, 0),
                os.unlink,
                lambda path: path.open("wb"),
                lambda path: path.chmod(0o644),
                lambda path: os.link(path, path.with_name("x")),
                lambda path: path.rename(path.with_name("x.txt")),
            ]
        ),
    )
    def refused(self, at: int, call: Callable[[Path], object]) -> None:
        user = self.users[at]
        folder = self.mount.archived(user.name)
        for path in [self.mount.current(user.name)] * bool(user.current) + [folder / name for name in user.archives]:
            with _raises(errno.EPERM):
                call(path)

    # Readers

    @rule(at=_users)
    def open_to_read(self, at: int) -> None:
        user = self.users[at]
        if user.current and user.reader is None:
            user.reader = self.mount.current(user.name).open("rb", buffering=0)
            user.seen = user.current

    @rule(at=_users)
    def read_what_is_open(self, at: int) -> None:
        user = self.users[at]
        if user.reader is not None:
            # It grows while it is the running one; whatever becomes of its name, it is what it was and no other.
            shown = os.pread(user.reader.fileno(), 1 << 20, 0)
            assert shown.startswith(joined(user.seen)) or joined(user.seen).startswith(shown)
            user.reader.close()
            user.reader = None

    # After every step

    @invariant()
    def the_mount_shows_what_the_model_holds(self) -> None:
        for user in self.users:
            current, folder = self.mount.current(user.name), self.mount.archived(user.name)
            if user.current:
                assert current.read_bytes() == joined(user.current)
                assert current.stat().st_size == len(joined(user.current))
                user.inode = user.inode or current.stat().st_ino
                assert current.stat().st_ino == user.inode
            else:
                assert not current.exists()
            if self.archival:
                assert sorted(os.listdir(folder)) == sorted(user.archives)
                for name, held in user.archives.items():
                    assert (folder / name).read_bytes() == joined(held)
            if self.journal is not None:
                assert self.journal.read_bytes(user.name) == joined(user.current)
            total = sum(map(len, (user.current, *user.archives.values())))
            metadata = self.mount.users / user.name / "metadata.yaml"
            assert metadata.exists() == bool(total), "there is something to tell of whoever has said something"
            if total:
                assert f"totalMessages: {total}\n" in metadata.read_text()


class _raises:  # noqa: N801  (reads as a statement)
    """Asserts an errno."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        assert isinstance(error, OSError), f"{errno.errorcode[self.number]} did not come"
        assert errno.errorcode[error.errno or 0] == errno.errorcode[self.number]
        return True


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def _decoded(name: str) -> str:
    from potofs import names

    return names.archive_name(name)


@pytest.mark.parametrize("backend", ["files", "redis", "memory"])
@pytest.mark.parametrize("part", range(2))
def test_it_shows_what_a_plain_model_holds_after_every_step(backend: str, part: int, tmp_path: Path) -> None:
    settings_of = f"maxConversationLength={THRESHOLD}" if backend != "memory" else "maxConversationLength=0"
    where = {
        "files": f"file://{tmp_path}/journal?{settings_of}",
        "redis": f"redis://{redis_servers.shared().place}?prefix={tmp_path.name}:&{settings_of}",
        "memory": f"memory:?{settings_of}",
    }[backend]
    names = (f"user {number}" for number in itertools.count())
    with ExitStack() as stack:
        mount = stack.enter_context(mounted(where, tmp_path / "mnt"))
        mount.expect_warning("user 'user |not a mapping")
        journal = None
        if backend != "memory":
            journal = stack.enter_context(open_journal(where))
            assert Capability.ARCHIVAL in journal.capabilities

        class Here(_Steps):
            def __init__(self) -> None:
                super().__init__(mount, journal, names)

        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        if journal is not None:
            assert list(journal.fsck()) == []
        assert run("df", mount.path).returncode == 0
