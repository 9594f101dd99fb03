"""The filesystem backend at an empty place, and mia's journal on Redis with its keys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from potofs.backends.base import Archived, Backend
from potofs.backends.filesystem.conversations import Conversations
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.keys import Keys
from tests import redis_servers
from tests.backends.kit import close_all, open_filesystem
from tests.backends.mias import mias


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


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users whose archives all were looked at."""
    looked: list[str] = []
    archives = Conversations.archives

    def noted(self: Conversations, user: str) -> list[Archived]:
        looked.append(user)
        return archives(self, user)

    monkeypatch.setattr(Conversations, "archives", noted)
    return looked


@pytest.fixture
def client() -> Iterator[redis.Redis]:
    """Of the shared server."""
    with redis_servers.shared().client() as client:
        yield client


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Of this test's journal there."""
    return Keys(f"{tmp_path}:")


@pytest.fixture
def backend(tmp_path: Path) -> RedisBackend:
    """That journal, with what mia said; several files have another one of this name."""
    return mias(tmp_path)
