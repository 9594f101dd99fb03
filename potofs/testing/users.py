"""Users and what is kept beside conversations: who there is, copies with their times, what was set aside."""

import re
import time

import pytest

from potofs.backends.base import Backend
from potofs.errors import AlreadyExists, InvalidName, NameTooLong, NotFound
from potofs.testing.records import HOSTILE, joined, records, short, stored
from potofs.testing.suite import OpenBackend, Suite

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


class Copying(Suite):
    """Conversations stored as somebody else had them."""

    def test_a_copy_is_stored_as_it_is_with_its_time(self, opened: OpenBackend) -> None:
        backend = opened(maxConversationLength="2")
        data = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\ntorn" + joined(records(0, 5))
        when = 1_705_314_600_123_456_789
        backend.put_current("mia", data, when)
        assert stored(backend, "mia") == data
        assert (backend.stat("mia").size, backend.stat("mia").mtime_ns) == (len(data), when)
        assert backend.archives("mia") == []

    def test_a_running_conversation_is_never_replaced(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        with pytest.raises(AlreadyExists):
            backend.put_current("mia", b"other", 1)
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_a_copy_of_nothing_is_no_conversation(self, backend: Backend) -> None:
        backend.put_current("mia", b"", 1)
        for attempt in (backend.stat, backend.open):
            with pytest.raises(NotFound):
                attempt("mia")
        backend.put_current("mia", joined(records(0, 1)), 1)
        assert stored(backend, "mia") == joined(records(0, 1))

    def test_times_can_be_set_and_an_append_sets_them_anew(self, backend: Backend) -> None:
        backend.append("mia", records(0, 1))
        backend.set_times("mia", None, 1_000_000_123)
        assert backend.stat("mia").mtime_ns == 1_000_000_123
        assert backend.stat("mia").ctime_ns > 10**18
        backend.append("mia", records(1, 2))
        assert backend.stat("mia").mtime_ns > 10**18


class SettingAside(Suite):
    """Bytes that could not become a message."""

    def test_what_is_set_aside_can_be_listed_read_and_removed(self, backend: Backend) -> None:
        names = [backend.set_aside("mia", data) for data in (b"one", b"\xff\x00two")]
        assert {aside.name: aside.stat.size for aside in backend.set_asides("mia")} == {names[0]: 3, names[1]: 5}
        with backend.open_set_aside("mia", names[1]) as reader:
            assert reader.read_all() == b"\xff\x00two"
            backend.remove_set_aside("mia", names[1])
            assert reader.read_all() == b"\xff\x00two", "whoever reads it goes on"
        assert [aside.name for aside in backend.set_asides("mia")] == names[:1]
        for attempt in (backend.remove_set_aside, backend.open_set_aside):
            with pytest.raises(NotFound):
                attempt("mia", names[1])

    def test_each_is_called_by_the_time_and_none_is_replaced(self, backend: Backend) -> None:
        before = time.time_ns()
        names = [backend.set_aside("mia", b"%d" % number) for number in range(12)]
        assert len(set(names)) == 12
        assert all(TIME_NAME.fullmatch(name) for name in names), names
        contents = []
        for name in names:
            with backend.open_set_aside("mia", name) as reader:
                contents.append(reader.read_all())
                assert reader.stat().mtime_ns >= before - 20_000_000
        assert contents == [b"%d" % number for number in range(12)]

    def test_it_belongs_to_no_conversation_and_no_other_user(self, backend: Backend) -> None:
        name = backend.set_aside("mia", joined(records(0, 1)))
        assert backend.archives("mia") == []
        with pytest.raises(NotFound):
            backend.stat("mia")
        with pytest.raises(NotFound):
            backend.open_set_aside("noah", name)
        assert backend.append("mia", records(0, 1)).stored == 1
