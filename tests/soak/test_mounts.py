"""Two mounts of one journal, for a moment."""

from pathlib import Path

import pytest

from tests.soak import mounts, places


@pytest.mark.parametrize("backend", places.BACKENDS)
def test_many_who_write_archive_restore_and_read_on_two_mounts_see_nothing_stale_cut_or_torn(
    backend: str, tmp_path: Path
) -> None:
    report = mounts.run(backend, tmp_path, seconds=4)
    assert report.violations == [], report.text()
