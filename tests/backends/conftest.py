"""A backend at an empty place, whichever it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from tests.backends.kit import OPENERS, close_all, open_filesystem, opener


@pytest.fixture(params=sorted(OPENERS))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Backend]]:
    """Opens one and the same place as often as it is called, with settings: each time another server's backend."""
    backends: list[Backend] = []
    open_there = opener(request.param, tmp_path)

    def opened(**options: str) -> Backend:
        backends.append(open_there(**options))
        return backends[-1]

    yield opened
    for backend in backends:
        backend.close()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Closes what a test has opened."""
    yield
    close_all()


@pytest.fixture
def backend(opened: Callable[..., Backend]) -> Backend:
    """Every backend in turn."""
    return opened()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """The folder of all users of the files."""
    return tmp_path / "journal/users"


@pytest.fixture
def on_files(tmp_path: Path) -> Callable[..., Backend]:
    """Opens the filesystem backend, with settings."""

    def on_files(**options: str) -> Backend:
        return open_filesystem(tmp_path, **options)

    return on_files
