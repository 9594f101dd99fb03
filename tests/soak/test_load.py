"""A little load on a mount."""

from pathlib import Path

import pytest

from tests.soak import load, places


@pytest.mark.parametrize("backend", places.BACKENDS)
def test_a_mount_under_load_loses_tears_and_doubles_nothing_and_does_not_grow(backend: str, tmp_path: Path) -> None:
    report = load.run(backend, tmp_path, seconds=0.5, rounds=2, crowd=load.Crowd(2, 1, 1))
    assert report.violations == [], report.text()
