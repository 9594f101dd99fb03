"""A disk that fills up a few times."""

import os
from pathlib import Path

import pytest

from tests.soak import full


@pytest.mark.parametrize("real", [True, False][os.geteuid() != 0 :])
def test_a_disk_that_is_full_again_and_again_loses_and_tears_nothing(real: bool, tmp_path: Path) -> None:
    report = full.run(tmp_path, seconds=1, real=real)
    assert report.violations == [], report.text()
