"""Each trouble that a server can have, once."""

from pathlib import Path

from tests.soak import outages


def test_a_server_that_is_stopped_killed_and_restarted_under_appends_has_everything_once(tmp_path: Path) -> None:
    report = outages.run(tmp_path, seconds=0)
    assert report.violations == [], report.text()
