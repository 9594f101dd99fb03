"""What Prometheus reads of a mount."""

import errno

from prometheus_client.parser import text_string_to_metric_families

from potofs.fuse import metrics
from potofs.fuse.activity import BOUNDS, Activity
from potofs.journal.models import DialogueJournalStats
from potofs.journal.tally import Taken
from potofs.tree.system import Figures

STATS = DialogueJournalStats(
    total_users=2,
    total_messages=5,
    total_archived_conversations=1,
    average_messages_per_user=2.5,
    storage_usage=300,
    newest_message="2024-01-15T10:30:00.500Z",
    backend="filesystem",
)


def samples(text: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        sample.name + "".join(f",{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_are_counted_with_their_failures_and_how_long_they_took() -> None:
    activity = Activity()
    for seconds in (0.00002, 0.0003, 0.0003, 99.0):
        activity.answered("read", seconds)
    activity.answered("write", 0.001, errno.ETIMEDOUT)
    activity.answered("write", 0.001, errno.ETIMEDOUT)
    activity.answered("write", 0.001, 99999)
    found = samples(metrics.text(activity, {}, Figures(Taken(0, 0, 0), None)))
    assert found["potofs_requests_total,operation=read"] == 4
    assert found["potofs_requests_total,operation=write"] == 3
    assert found["potofs_request_errors_total,errno=ETIMEDOUT,operation=write"] == 2
    assert found["potofs_request_errors_total,errno=99999,operation=write"] == 1
    assert not any("errors" in name and "read" in name for name in found)
    buckets = [found[f"potofs_request_seconds_bucket,le={bound},operation=read"] for bound in BOUNDS]
    assert buckets == [1, 1, 1] + [3] * (len(BOUNDS) - 3)
    assert found["potofs_request_seconds_bucket,le=+Inf,operation=read"] == 4
    assert found["potofs_request_seconds_count,operation=read"] == 4
    assert round(found["potofs_request_seconds_sum,operation=read"], 5) == 99.00062


def test_the_journal_s_figures_are_gauges_and_missing_where_the_backend_does_not_answer() -> None:
    taken = Taken(records=3, bytes=200, rejected=1)
    found = samples(metrics.text(Activity(), {"open files": 4}, Figures(taken, STATS)))
    assert found == {
        "potofs_open_files": 4,
        "potofs_appended_records_total": 3,
        "potofs_appended_bytes_total": 200,
        "potofs_rejected_total": 1,
        "potofs_backend_up": 1,
        "potofs_users": 2,
        "potofs_messages": 5,
        "potofs_archived_conversations": 1,
        "potofs_storage_bytes": 300,
        "potofs_newest_message_timestamp_seconds": 1705314600.5,
    }
    found = samples(metrics.text(Activity(), {}, Figures(taken, None)))
    assert found["potofs_backend_up"] == 0
    assert "potofs_users" not in found
