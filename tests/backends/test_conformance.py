"""Our backends pass the suite that plug-ins pass, and what only those with a clock of our own can be asked for."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.testing import BackendConformance, OpenBackend
from tests.backends.kit import OPENERS, opener, records, stored


class TestOurs(BackendConformance):
    """Every backend of ours, by one parameter."""

    @pytest.fixture(params=sorted(OPENERS))
    def open_backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> OpenBackend:
        return opener(request.param, tmp_path)


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
