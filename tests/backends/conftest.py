"""The filesystem backend at an empty place."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from tests.backends.kit import close_all, open_filesystem


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Closes what a test has opened."""
    yield
    close_all()


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
