"""Some of many kills."""

from pathlib import Path

import pytest

from tests.soak import kills


@pytest.mark.parametrize("fsync", ["never", "always"])
def test_whatever_was_acknowledged_survives_writers_that_are_killed(fsync: str, tmp_path: Path) -> None:
    report = kills.run("filesystem", tmp_path, kills=12, fsync=fsync)
    assert report.violations == [], report.text()
