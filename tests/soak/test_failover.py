"""A master that dies twice, the second time with its replica cut off."""

from pathlib import Path

import pytest

from tests.soak import failover


@pytest.mark.parametrize(("kind", "wait_replicas"), [("sentinel", 0), ("sentinel", 1), ("cluster", 1)])
def test_failovers_lose_only_what_no_replica_was_waited_for_with(kind: str, wait_replicas: int, tmp_path: Path) -> None:
    report = failover.run(kind, tmp_path, rounds=2, wait_replicas=wait_replicas)
    assert report.violations == [], report.text()
