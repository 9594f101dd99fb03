"""A backend against the plainest model of one: after every step both hold the same, on two servers in turn."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from potofs.backends.base import Backend, Record
from potofs.errors import AlreadyExists, NotFound
from tests.backends.kit import OPENERS, Opener, joined, opener, record, stored

THRESHOLD = 6
USERS = ("mia", "../noah")

users = st.sampled_from(USERS)
servers = st.integers(0, 1)
archive_names = st.sampled_from(["refund", "..", "a/b", "Grüße"])
numbers = st.integers(0, 12)


class _User:
    """What a user should have."""

    def __init__(self) -> None:
        self.current: list[Record] = []
        self.archives: dict[str, list[Record]] = {}
        self.asides: dict[str, bytes] = {}
        self.current_id: int | None = None
        self.ids: dict[str, int] = {}


class Model(RuleBasedStateMachine):
    """Steps that are done to both."""

    def __init__(self, open_backend: Opener) -> None:
        super().__init__()
        options = {"archiveThreshold": str(THRESHOLD), "fsync": "never"}
        self.servers: list[Backend] = [open_backend(**options) for _ in range(2)]
        self.users = {user: _User() for user in USERS}

    def newest(self, user: str) -> list[Record]:
        """What the archive holds that was appended to last."""
        found = max(
            self.servers[0].archives(user), key=lambda archive: (archive.stat.mtime_ns, archive.name), default=None
        )
        return self.users[user].archives[found.name] if found else []

    def has_become(self, user: str, name: str) -> None:
        """The running conversation is an archive now."""
        model = self.users[user]
        assert name not in model.archives
        model.archives[name], model.current = model.current, []
        if model.current_id is not None:
            model.ids[name], model.current_id = model.current_id, None

    @rule(server=servers, user=users, given=st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=8))
    def append(self, server: int, user: str, given: list[tuple[int, bool]]) -> None:
        model = self.users[user]
        known = {one.mark.fingerprint for one in (*model.current, *self.newest(user))}
        batch = [record(f"message {number}", retry=retry) for number, retry in given]
        fresh = []
        for one in batch:
            if not one.retry or one.mark.fingerprint not in known:
                fresh.append(one)
                known.add(one.mark.fingerprint)
        model.current += fresh
        done = self.servers[server].append(user, batch)
        assert done.stored == len(fresh)
        assert (done.archived_as is not None) == (len(model.current) >= THRESHOLD)
        if done.archived_as is not None:
            self.has_become(user, done.archived_as)

    @rule(server=servers, user=users, name=st.none() | archive_names)
    def archive(self, server: int, user: str, name: str | None) -> None:
        model = self.users[user]
        if not model.current:
            with pytest.raises(NotFound):
                self.servers[server].archive(user, name)
        elif name in model.archives:
            with pytest.raises(AlreadyExists):
                self.servers[server].archive(user, name)
        else:
            self.has_become(user, self.servers[server].archive(user, name))

    @rule(server=servers, user=users, name=archive_names, first=numbers, count=st.integers(1, 9), when=numbers)
    def put_archive(self, server: int, user: str, name: str, first: int, count: int, when: int) -> None:
        model = self.users[user]
        copied = [record(f"message {number}") for number in range(first, first + count)]
        if name in model.archives:
            with pytest.raises(AlreadyExists):
                self.servers[server].put_archive(user, name, joined(copied), when)
        else:
            self.servers[server].put_archive(user, name, joined(copied), when * 10**17)
            model.archives[name] = copied

    @rule(server=servers, user=users, first=numbers, count=st.integers(1, 9))
    def put_current(self, server: int, user: str, first: int, count: int) -> None:
        model = self.users[user]
        copied = [record(f"message {number}") for number in range(first, first + count)]
        if model.current:
            with pytest.raises(AlreadyExists):
                self.servers[server].put_current(user, joined(copied), 1)
        else:
            self.servers[server].put_current(user, joined(copied), 1)
            model.current, model.current_id = copied, None

    @rule(server=servers, user=users, when=numbers)
    def set_times(self, server: int, user: str, when: int) -> None:
        if self.users[user].current:
            self.servers[server].set_times(user, None, when * 10**17)
            assert self.servers[1 - server].stat(user).mtime_ns == when * 10**17

    @rule(server=servers, user=users, data=st.binary(max_size=20))
    def set_aside(self, server: int, user: str, data: bytes) -> None:
        name = self.servers[server].set_aside(user, data)
        assert name not in self.users[user].asides
        self.users[user].asides[name] = data

    @rule(server=servers, user=users)
    def remove_set_aside(self, server: int, user: str) -> None:
        if self.users[user].asides:
            self.servers[server].remove_set_aside(user, self.users[user].asides.popitem()[0])

    @invariant()
    def both_hold_the_same(self) -> None:
        for server, user in itertools.product(self.servers, USERS):
            model = self.users[user]
            archives = {archive.name: archive.stat for archive in server.archives(user)}
            assert {name: stored(server, user, name) for name in archives} == {
                name: joined(held) for name, held in model.archives.items()
            }
            for name, stat in archives.items():
                assert stat.size == len(joined(model.archives[name]))
                assert model.ids.setdefault(name, stat.id) == stat.id, "an archive keeps its number"
            assert {aside.name: aside.stat.size for aside in server.set_asides(user)} == {
                name: len(data) for name, data in model.asides.items()
            }
            if model.current:
                stat = server.stat(user)
                assert stored(server, user) == joined(model.current)
                assert stat.size == len(joined(model.current))
                model.current_id = model.current_id or stat.id
                assert model.current_id == stat.id, "a running conversation keeps its number"
            else:
                with pytest.raises(NotFound):
                    server.stat(user)

    def teardown(self) -> None:
        for server in self.servers:
            server.close()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(number) for number in itertools.count())


@pytest.mark.parametrize("name", sorted(OPENERS))
def test_a_backend_holds_what_the_model_holds_after_every_step(name: str, places: Iterator[Path]) -> None:
    class Here(Model):
        def __init__(self) -> None:
            super().__init__(opener(name, next(places)))

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
