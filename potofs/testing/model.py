"""A backend against the plainest model of one: after every step both hold the same, on two servers in turn."""

import itertools
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from potofs.backends.base import Backend, Capability, Record, Totals
from potofs.errors import AlreadyExists, NotFound, Unsupported
from potofs.testing.records import joined, record, stored
from potofs.testing.suite import OpenServers, Suite

#: A conversation is archived by itself at this many messages.
_THRESHOLD = 6

#: Users of one run: each run has users of its own, so that all can share one place.
_users = st.integers(0, 1)
_servers = st.integers(0, 1)
_archive_names = st.sampled_from(["refund", "..", "a/b", "Grüße"])
_numbers = st.integers(0, 12)
_when = _numbers.map(lambda number: number * 10**17)


class _User:
    """What a user should have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.current: list[Record] = []
        self.archives: dict[str, list[Record]] = {}
        self.asides: dict[str, bytes] = {}
        # Numbers are the backend's to choose, and to keep.
        self.current_id: int | None = None
        self.ids: dict[str, int] = {}

    def has_become(self, archive: str) -> None:
        """The running conversation is an archive now."""
        assert archive not in self.archives, "an archive was replaced"
        self.archives[archive], self.current = self.current, []
        if self.current_id is not None:
            self.ids[archive], self.current_id = self.current_id, None

    @property
    def conversations(self) -> list[list[Record]]:
        return [held for held in (self.current, *self.archives.values()) if held]


def _messages(first: int, count: int) -> list[Record]:
    return [_message(number) for number in range(first, first + count)]


def _message(number: int, *, retry: bool = True) -> Record:
    return record(f"message {number}", retry=retry, time=f"2024-01-15T10:00:{number:02d}Z")


class _Steps(RuleBasedStateMachine):
    """What is done to both."""

    def __init__(self, servers: tuple[Backend, Backend], names: Iterator[str]) -> None:
        super().__init__()
        self.servers = servers
        self.capabilities = servers[0].capabilities
        self.users = [_User(next(names)), _User(next(names))]
        # What other runs have left here.
        self.others = servers[0].totals()
        self.archival = Capability.ARCHIVAL in self.capabilities

    def teardown(self) -> None:
        for user in self.users:
            assert list(self.servers[0].check(user.name, repair=False)) == [], "nothing is wrong in the end"

    def newest(self, user: _User) -> list[Record]:
        """What the archive holds that was appended to last."""
        archives = self.servers[0].archives(user.name)
        found = max(archives, key=lambda archive: (archive.stat.mtime_ns, archive.name), default=None)
        return user.archives[found.name] if found else []

    @rule(server=_servers, at=_users, given=st.lists(st.tuples(_numbers, st.booleans()), min_size=1, max_size=8))
    def append(self, server: int, at: int, given: list[tuple[int, bool]]) -> None:
        user = self.users[at]
        known = {one.mark.fingerprint for one in (*user.current, *self.newest(user))}
        batch = [_message(number, retry=retry) for number, retry in given]
        fresh = []
        for one in batch:
            if not one.retry or one.mark.fingerprint not in known:
                fresh.append(one)
                known.add(one.mark.fingerprint)
        user.current += fresh
        done = self.servers[server].append(user.name, batch)
        assert done.stored == len(fresh)
        assert (done.archived_as is not None) == (self.archival and len(user.current) >= _THRESHOLD)
        if done.archived_as is not None:
            user.has_become(done.archived_as)

    @precondition(lambda self: not self.archival)
    @rule(server=_servers, at=_users)
    def clear(self, server: int, at: int) -> None:
        user = self.users[at]
        if user.current:
            self.servers[server].clear(user.name)
            user.current, user.current_id = [], None
        else:
            with pytest.raises(NotFound):
                self.servers[server].clear(user.name)

    @precondition(lambda self: self.archival)
    @rule(server=_servers, at=_users, name=st.none() | _archive_names)
    def archive(self, server: int, at: int, name: str | None) -> None:
        user = self.users[at]
        if not user.current:
            with pytest.raises(NotFound):
                self.servers[server].archive(user.name, name)
        elif name in user.archives:
            with pytest.raises(AlreadyExists):
                self.servers[server].archive(user.name, name)
        else:
            user.has_become(self.servers[server].archive(user.name, name))

    @precondition(lambda self: self.archival)
    @rule(server=_servers, at=_users, swap=st.booleans(), data=st.data())
    def restore(self, server: int, at: int, swap: bool, data: st.DataObject) -> None:
        user = self.users[at]
        name = data.draw(st.sampled_from([*user.archives, "of nobody"]))
        if name not in user.archives:
            with pytest.raises(NotFound):
                self.servers[server].restore(user.name, name)
        elif user.current and not swap:
            with pytest.raises(AlreadyExists):
                self.servers[server].restore(user.name, name, swap=False)
        else:
            swapped = self.servers[server].restore(user.name, name, swap=swap)
            restored, number = user.archives.pop(name), user.ids.pop(name, None)
            assert (swapped is not None) == bool(user.current)
            if swapped is not None:
                user.has_become(swapped)
            user.current, user.current_id = restored, number

    @precondition(lambda self: self.archival)
    @rule(server=_servers, at=_users, new=_archive_names, data=st.data())
    def rename_archive(self, server: int, at: int, new: str, data: st.DataObject) -> None:
        user = self.users[at]
        name = data.draw(st.sampled_from([name for name in (*user.archives, "of nobody") if name != new]))
        if name not in user.archives:
            if new not in user.archives:
                with pytest.raises(NotFound):
                    self.servers[server].rename_archive(user.name, name, new)
        elif new in user.archives:
            with pytest.raises(AlreadyExists):
                self.servers[server].rename_archive(user.name, name, new)
        else:
            self.servers[server].rename_archive(user.name, name, new)
            user.archives[new] = user.archives.pop(name)
            if name in user.ids:
                user.ids[new] = user.ids.pop(name)

    @precondition(lambda self: Capability.COMPRESSION in self.capabilities)
    @rule(server=_servers, at=_users, data=st.data())
    def compress(self, server: int, at: int, data: st.DataObject) -> None:
        user = self.users[at]
        if user.archives:
            assert self.servers[server].compress(user.name, data.draw(st.sampled_from(list(user.archives)))) >= 0

    @precondition(lambda self: self.archival)
    @rule(server=_servers, at=_users, name=_archive_names, first=_numbers, count=st.integers(1, 9), when=_when)
    def put_archive(self, server: int, at: int, name: str, first: int, count: int, when: int) -> None:
        user, copied = self.users[at], _messages(first, count)
        if name in user.archives:
            with pytest.raises(AlreadyExists):
                self.servers[server].put_archive(user.name, name, joined(copied), when)
        else:
            self.servers[server].put_archive(user.name, name, joined(copied), when)
            user.archives[name] = copied

    @rule(server=_servers, at=_users, first=_numbers, count=st.integers(1, 9), when=_when)
    def put_current(self, server: int, at: int, first: int, count: int, when: int) -> None:
        user, copied = self.users[at], _messages(first, count)
        if user.current:
            with pytest.raises(AlreadyExists):
                self.servers[server].put_current(user.name, joined(copied), when)
        else:
            self.servers[server].put_current(user.name, joined(copied), when)
            user.current, user.current_id = copied, None

    @rule(server=_servers, at=_users, first=_numbers, count=st.integers(0, 9), when=_when)
    def extend(self, server: int, at: int, first: int, count: int, when: int) -> None:
        user, copied = self.users[at], _messages(first, count)
        if not user.current:
            return
        seen = self.servers[1 - server].stat(user.name)
        with suppress(Unsupported):
            assert self.servers[server].extend(user.name, seen, joined(copied), when)
            assert self.servers[1 - server].stat(user.name).mtime_ns == when
            # Where it is rewritten for that, it has another number then.
            user.current, user.current_id = user.current + copied, None

    @rule(server=_servers, at=_users, when=_when, data=st.data())
    def set_times(self, server: int, at: int, when: int, data: st.DataObject) -> None:
        user = self.users[at]
        archive = data.draw(st.sampled_from([None, *user.archives]))
        if archive is not None or user.current:
            self.servers[server].set_times(user.name, archive, when)
            assert self.servers[1 - server].stat(user.name, archive).mtime_ns == when

    @rule(server=_servers, at=_users, data=st.binary(max_size=20))
    def set_aside(self, server: int, at: int, data: bytes) -> None:
        user = self.users[at]
        name = self.servers[server].set_aside(user.name, data)
        assert name not in user.asides
        user.asides[name] = data

    @rule(server=_servers, at=_users)
    def remove_set_aside(self, server: int, at: int) -> None:
        user = self.users[at]
        if user.asides:
            self.servers[server].remove_set_aside(user.name, user.asides.popitem()[0])

    @invariant()
    def both_servers_hold_what_the_model_holds(self) -> None:
        for server in self.servers:
            size = sum(self.bytes_of(server, user) for user in self.users)
            assert server.totals() == self.totals(size)
            known = set(server.users())
            for user in self.users:
                if user.conversations or user.asides:
                    assert user.name in known

    def bytes_of(self, server: Backend, user: _User) -> int:
        """Compares what a user has, and returns how many bytes it takes."""
        archives = {archive.name: archive for archive in server.archives(user.name)}
        assert {name: stored(server, user.name, name) for name in archives} == {
            name: joined(held) for name, held in user.archives.items()
        }
        for name, archive in archives.items():
            assert archive.stat.size == len(joined(user.archives[name]))
            assert user.ids.setdefault(name, archive.stat.id) == archive.stat.id, "an archive keeps its number"
        assert {aside.name: aside.stat.size for aside in server.set_asides(user.name)} == {
            name: len(data) for name, data in user.asides.items()
        }
        if user.current:
            stat = server.stat(user.name)
            assert stored(server, user.name) == joined(user.current)
            assert stat.size == len(joined(user.current))
            user.current_id = user.current_id or stat.id
            assert user.current_id == stat.id, "a running conversation keeps its number"
        else:
            with pytest.raises(NotFound):
                server.stat(user.name)
        return len(joined(user.current)) + sum(archive.stored_size for archive in archives.values())

    def totals(self, size: int) -> Totals:
        """What should be counted, if these users' conversations take so many bytes."""
        others = self.others
        held = list(itertools.chain.from_iterable(user.conversations for user in self.users))
        said = [one.mark.time_ns for records in held for one in records if one.mark.time_ns is not None]
        return Totals(
            # Appending to nobody makes a user; that it does, and when, is told elsewhere.
            users=sum(1 for _ in self.servers[0].users()),
            conversations=others.conversations + sum(1 for user in self.users if user.current),
            archives=others.archives + sum(len(user.archives) for user in self.users),
            messages=others.messages + sum(map(len, held)),
            bytes=others.bytes + size,
            first_ns=min(filter(None, [others.first_ns, *said]), default=None),
            last_ns=max(filter(None, [others.last_ns, *said]), default=None),
        )


class Modelled(Suite):
    """Whatever comes after whatever."""

    #: How many runs are tried at one place, of at most so many steps.
    runs = 10
    steps = 25

    # At several places, for at each there are more and more users, whom some backends count one by one.
    @pytest.mark.parametrize("part", range(8))
    def test_it_holds_what_a_plain_model_holds_after_every_step(self, servers: OpenServers, part: int) -> None:
        both = servers(maxConversationLength=str(_THRESHOLD) if Capability.ARCHIVAL in self.capabilities else "0")
        names = (f"../user {number}" for number in itertools.count())

        class Here(_Steps):
            def __init__(self) -> None:
                super().__init__(both, names)

        chosen = settings(
            max_examples=self.runs,
            stateful_step_count=self.steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        if chosen.derandomize:
            # Hypothesis does so where it finds itself in CI; all parts would try the same then.
            seed(part)(Here)
        run_state_machine_as_test(Here, settings=chosen)
