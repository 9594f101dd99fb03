"""What could not become a message is kept beside conversations, and its copies with their names and times."""

import time

import pytest

from potofs.backends.base import Backend, Totals
from potofs.errors import AlreadyExists, NotFound
from potofs.testing.archiving import IMPOSSIBLE_NAMES
from potofs.testing.records import joined, picture, records, short
from potofs.testing.suite import OpenServers, Suite
from potofs.testing.users import TIME_NAME


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

    def test_of_many_it_tells_at_once_what_they_are_and_which_are_not_there(self, servers: OpenServers) -> None:
        one, other = servers()
        assert not other.has_set_asides("mia")
        names = [one.set_aside("mia", data) for data in (b"one", b"\xff\x00two", b"")]
        there = {aside.name: aside.stat for aside in one.set_asides("mia")}
        asked = [names[2], "nothing", names[0], names[1], names[0]]
        assert other.stats_of_set_asides("mia", asked) == [there.get(name) for name in asked]
        assert other.stats_of_set_asides("mia", []) == []
        assert other.stats_of_set_asides("noah", names) == [None, None, None]
        assert other.has_set_asides("mia")
        assert not other.has_set_asides("noah")
        for name in names:
            one.remove_set_aside("mia", name)
        assert not other.has_set_asides("mia")
        assert other.stats_of_set_asides("mia", names) == [None, None, None]

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

    def test_a_copy_is_kept_under_its_name_and_time_and_never_replaced(self, servers: OpenServers) -> None:
        one, other = servers()
        when = 1_705_314_600_123_456_789
        name = "20240115T103000.000Z-2"
        assert one.set_aside("mia", b"one", name, mtime_ns=when) == name
        before = picture(one)
        with pytest.raises(AlreadyExists):
            other.set_aside("mia", b"other", name, mtime_ns=1)
        assert picture(other) == before
        (aside,) = other.set_asides("mia")
        assert (aside.name, aside.stat.size, aside.stat.mtime_ns) == (name, 3, when)
        with other.open_set_aside("mia", name) as reader:
            assert reader.read_all() == b"one"
        assert other.set_aside("mia", b"", "a/b") == "a/b"
        assert other.set_aside("noah", b"of another", name) == name
        assert {aside.name: aside.stat.size for aside in one.set_asides("mia")} == {name: 3, "a/b": 0}
        assert one.totals() == Totals(2, 0, 0, 0, 0, None, None)
        # The same once more is the same copy, and has the time that it is given last.
        assert other.set_aside("mia", b"one", name, mtime_ns=when + 7) == name
        assert {aside.name: aside.stat.mtime_ns for aside in one.set_asides("mia")}[name] == when + 7
        with one.open_set_aside("mia", name) as reader:
            assert reader.read_all() == b"one"
        other.remove_set_aside("mia", name)
        assert one.set_aside("mia", b"again", name) == name

    @pytest.mark.parametrize(("name", "error"), IMPOSSIBLE_NAMES, ids=short)
    def test_no_copy_is_set_aside_under_a_name_that_none_can_have(
        self, backend: Backend, name: str, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            backend.set_aside("mia", b"refused", name)
        assert list(backend.users()) == []

    def test_it_belongs_to_no_conversation_and_no_other_user(self, backend: Backend) -> None:
        name = backend.set_aside("mia", joined(records(0, 1)))
        assert backend.archives("mia") == []
        with pytest.raises(NotFound):
            backend.stat("mia")
        with pytest.raises(NotFound):
            backend.open_set_aside("noah", name)
        assert backend.append("mia", records(0, 1)).stored == 1
