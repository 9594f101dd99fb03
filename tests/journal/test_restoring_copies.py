"""Copies that come back while others are at work on what they go on from."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.journal import copying
from tests.backends.kit import close_all, joined, names_of, opener, records, stored

ARCHIVING = ["filesystem", "redis"]


@pytest.fixture(params=ARCHIVING)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """With an archive that a copy goes on from."""
    backend = opener(request.param, tmp_path)()
    backend.put_archive("mia", "one", joined(records(0, 2)), 5)
    yield backend
    close_all()


def once_rewritten(backend: Backend, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Has something happen as soon as other bytes are in the place of those that were there."""
    rewrite = backend.rewrite

    def rewritten(*arguments: object, **more: object) -> bool:
        is_done = rewrite(*arguments, **more)  # type: ignore[arg-type]
        then()
        return is_done

    monkeypatch.setattr(backend, "rewrite", rewritten)


def test_an_archive_that_is_renamed_as_soon_as_it_has_gone_on_is_stored_with_its_time(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_rewritten(backend, monkeypatch, lambda: backend.rename_archive("mia", "one", "two"))
    copying.restore(backend, "mia", "one", joined(records(0, 4)), 7)
    assert names_of(backend, "mia") == ["two"]
    assert (stored(backend, "mia", "two"), backend.stat("mia", "two").mtime_ns) == (joined(records(0, 4)), 7)


def test_whoever_is_killed_as_soon_as_an_archive_has_gone_on_leaves_it_with_its_time(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    once_rewritten(backend, monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        copying.restore(backend, "mia", "one", joined(records(0, 4)), 7)
    assert (stored(backend, "mia", "one"), backend.stat("mia", "one").mtime_ns) == (joined(records(0, 4)), 7)
