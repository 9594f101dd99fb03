"""A mount whose daemon is killed a few times."""

from pathlib import Path

from tests.soak import daemons


def test_whatever_was_acknowledged_through_a_mount_survives_its_daemon(tmp_path: Path) -> None:
    report = daemons.run(tmp_path, kills=4)
    assert report.violations == [], report.text()
