"""Our backends pass the suite that plug-ins pass, and what only those with a clock of our own can be asked for."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.errors import Fenced, NotFound
from potofs.testing import BackendConformance, OpenBackend
from potofs.testing.fencing import FENCES, IF_IT_CAN
from tests.backends.kit import OPENERS, SEVERAL_SERVERS, joined, opener, records, stored


class TestOurs(BackendConformance):
    """Every backend of ours, by one parameter."""

    @pytest.fixture(params=sorted(set(OPENERS) - SEVERAL_SERVERS))
    def open_backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> OpenBackend:
        return opener(request.param, tmp_path)


class TestSeveralServers(BackendConformance):
    """Redis on several servers: the same scripts, so that fewer runs of the model tell of what is different."""

    runs = 3

    @pytest.fixture(params=sorted(SEVERAL_SERVERS))
    def open_backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> OpenBackend:
        return opener(request.param, tmp_path)


@pytest.mark.parametrize("name", sorted(OPENERS))
def test_a_conversation_goes_on_in_place(name: str, tmp_path: Path) -> None:
    backend = opener(name, tmp_path)()
    backend.append("mia", records(0, 2))
    before, changed = backend.stat("mia"), backend.user_changed("mia")
    with backend.open("mia") as reader:
        assert backend.extend("mia", before, joined(records(2, 4)), 7)
        assert reader.read_all() == joined(records(0, 4))
        assert reader.stat() == backend.stat("mia")
    after = backend.stat("mia")
    assert (after.id, after.mtime_ns) == (before.id, 7)
    assert after.ctime_ns >= before.ctime_ns
    assert backend.user_changed("mia") == changed


@pytest.mark.parametrize("name", sorted(OPENERS))
def test_every_time_of_a_user_is_kept_to_the_nanosecond(name: str, tmp_path: Path) -> None:
    backend = opener(name, tmp_path)()
    backend.append("mia", records(0, 2))
    backend.set_aside("mia", b"refused")
    for when in (1_705_314_600_123_456_789, 0, -1_000_000_001):
        backend.set_changed("mia", when)
        backend.set_changed(None, when)
        assert (backend.user_changed("mia"), backend.users_changed()) == (when, when)
    with pytest.raises(NotFound, match="no user 'noah'"):
        backend.set_changed("noah", 1)
    assert list(backend.users()) == ["mia"]


@pytest.mark.parametrize("name", sorted(OPENERS))
@pytest.mark.parametrize("change", IF_IT_CAN)
def test_whoever_changes_what_not_every_backend_can_is_told_of_the_fence(
    name: str, tmp_path: Path, change: str
) -> None:
    backend = opener(name, tmp_path)()
    backend.append("mia", records(0, 2))
    backend.set_fence(FENCES[0])
    with pytest.raises(Fenced):
        IF_IT_CAN[change](backend)


def test_names_of_the_same_millisecond_are_counted(
    on_files: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_files()
    monkeypatch.setattr(time, "time_ns", lambda: 1_705_314_600_123_000_000)
    names = []
    for number in range(3):
        backend.append("mia", records(number, number + 1))
        names.append(backend.archive("mia"))
    assert names == ["20240115T103000.123Z", "20240115T103000.123Z-2", "20240115T103000.123Z-3"]
    assert [stored(backend, "mia", name) for name in names] == [one.data for one in records(0, 3)]
    asides = [backend.set_aside("mia", data) for data in (b"one", b"two")]
    assert asides == names[:2]
