"""Everything at once, for a moment."""

from pathlib import Path

import pytest

from tests.soak import mixed, places


@pytest.mark.parametrize("backend", places.BACKENDS)
def test_several_processes_doing_everything_at_once_lose_double_tear_and_misplace_nothing(
    backend: str, tmp_path: Path
) -> None:
    report = mixed.run(backend, tmp_path, seconds=2, processes=3)
    assert report.violations == [], report.text()
