"""Users: who there is, what is known of them, when something of theirs changed."""

import re
import time
from contextlib import suppress

import pytest

from potofs.backends.base import Backend, Capability
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound
from potofs.testing.records import HOSTILE, joined, records, short, stored
from potofs.testing.suite import OpenServers, Suite

#: How a name that is a time looks, made unique with -2, -3, …
TIME_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z(-\d+)?")


class Users(Suite):
    """Who there is, by any id."""

    @pytest.mark.parametrize("user", HOSTILE, ids=short)
    def test_a_user_may_have_any_id(self, backend: Backend, user: str) -> None:
        backend.append(user, records(0, 1))
        backend.set_aside(user, b"refused")
        assert list(backend.users()) == [user]
        assert backend.has_user(user)
        assert stored(backend, user) == joined(records(0, 1))

    def test_users_of_hostile_ids_are_apart(self, backend: Backend) -> None:
        for number, user in enumerate(HOSTILE):
            backend.append(user, records(number, number + 1))
        assert sorted(backend.users()) == sorted(HOSTILE)
        assert [stored(backend, user) for user in HOSTILE] == [one.data for one in records(0, len(HOSTILE))]

    @pytest.mark.parametrize(
        ("user", "error"),
        [("", InvalidName), ("\udcff", InvalidName), ("a" * 256, NameTooLong), ("/" * 86, NameTooLong)],
        ids=short,
    )
    def test_an_id_that_no_user_can_have_is_refused(self, backend: Backend, user: str, error: type[Exception]) -> None:
        for attempt in (backend.has_user, backend.stat, backend.open, backend.archives, backend.set_asides):
            with pytest.raises(error):
                attempt(user)
        with pytest.raises(error):
            backend.append(user, records(0, 1))
        with pytest.raises(error):
            backend.create_user(user, b"")
        with pytest.raises(error):
            backend.put_current(user, joined(records(0, 1)), 1)
        with pytest.raises(error):
            backend.set_aside(user, b"refused")
        assert list(backend.users()) == []

    def test_of_many_users_it_tells_at_once_when_they_changed_and_who_is_not_there(self, backend: Backend) -> None:
        for user in HOSTILE:
            backend.append(user, records(0, 1))
        asked = [*HOSTILE, "nobody", HOSTILE[0]]
        expected = [*map(backend.user_changed, HOSTILE), None, backend.user_changed(HOSTILE[0])]
        assert backend.changes_of(asked) == expected
        assert backend.changes_of([]) == []

    def test_a_user_is_created_once_with_a_profile(self, backend: Backend) -> None:
        before = backend.users_changed()
        backend.create_user("mia", b"userId: mia\n")
        assert backend.read_profile("mia") == b"userId: mia\n"
        with pytest.raises(AlreadyExists):
            backend.create_user("mia", b"other")
        assert backend.read_profile("mia") == b"userId: mia\n"
        assert list(backend.users()) == ["mia"]
        assert backend.has_user("mia")
        assert backend.users_changed() >= before
        assert backend.users_changed() > 0

    def test_whoever_is_appended_to_or_copied_is_a_user(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.put_current("noah", joined(records(0, 1)), 1)
        backend.set_aside("zoe", b"refused")
        assert sorted(backend.users()) == ["mia", "noah", "zoe"]
        with pytest.raises(AlreadyExists):
            backend.create_user("mia", b"profile")

    def test_a_user_changes_when_a_conversation_comes_and_not_when_it_grows(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        first = backend.user_changed("mia")
        assert first > 10**18
        backend.append("mia", records(1, 2))
        assert backend.user_changed("mia") == first

    def test_a_profile_takes_the_place_of_another_with_its_time(self, servers: OpenServers) -> None:
        one, other = servers()
        before = time.time_ns()
        one.create_user("mia", b"userId: mia\n")
        # A file's clock may be a tick behind, a server's a little off.
        assert before - 20_000_000 <= one.profile_changed("mia") <= time.time_ns() + 20_000_000
        one.append("mia", records(0, 2))
        changed, said = one.user_changed("mia"), one.stat("mia")
        for profile, when in ((b"userId: mia\npreferences: {}\n", 1_705_314_600_123_456_789), (b"\xff", 7)):
            other.put_profile("mia", profile, when)
            for server in (one, other):
                assert (server.read_profile("mia"), server.profile_changed("mia")) == (profile, when)
        assert (one.user_changed("mia"), one.stat("mia")) == (changed, said), "it is no conversation"
        assert list(one.users()) == ["mia"]

    def test_who_is_no_user_gets_no_profile_and_who_has_none_may_get_one(self, backend: Backend) -> None:
        with pytest.raises(NotFound):
            backend.put_profile("mia", b"profile", 1)
        assert list(backend.users()) == []
        assert backend.profile_changed("mia") == 0
        backend.append("mia", records(0, 1))
        assert (backend.read_profile("mia"), backend.profile_changed("mia")) == (b"", 0)
        backend.put_profile("mia", b"profile", 1)
        assert (backend.read_profile("mia"), backend.profile_changed("mia")) == (b"profile", 1)
        with pytest.raises(AlreadyExists):
            backend.create_user("mia", b"other")
        assert (backend.read_profile("mia"), backend.profile_changed("mia")) == (b"profile", 1)

    def test_when_a_user_changed_can_be_set_until_the_next_change_or_stays(self, servers: OpenServers) -> None:
        one, other = servers()
        when = 1_705_314_600_123_456_789
        one.append("mia", records(0, 1))
        one.set_aside("mia", b"refused")
        before = one.user_changed("mia")
        other.set_changed("mia", when)
        assert one.user_changed("mia") == other.user_changed("mia")
        assert one.user_changed("mia") in (when, before)
        one.append("mia", records(1, 2))
        assert one.user_changed("mia") in (when, before), "it has only grown"
        one.set_aside("mia", b"refused")
        assert one.user_changed("mia") >= before
        if Capability.ARCHIVAL in self.capabilities:
            other.set_changed("mia", when)
            one.archive("mia", "refund")
            assert one.user_changed("mia") >= before
            other.set_changed("mia", when)
            assert one.append("mia", records(0, 3)).stored == 1, "what is known of archives goes by no time"

    def test_when_users_were_added_can_be_set_until_the_next_or_stays(self, servers: OpenServers) -> None:
        one, other = servers()
        when = 1_705_314_600_123_456_789
        for user in ("mia", "noah"):
            one.append(user, records(0, 1))
        before = one.users_changed()
        other.set_changed(None, when)
        assert one.users_changed() == other.users_changed()
        assert one.users_changed() in (when, before)
        one.append("zoe", records(0, 1))
        assert one.users_changed() >= before

    def test_nobody_becomes_a_user_by_a_time(self, backend: Backend) -> None:
        with suppress(NotFound):
            backend.set_changed("nobody", 1)
        assert list(backend.users()) == []
        assert backend.user_changed("nobody") == 0
