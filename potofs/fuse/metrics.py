"""What a mount does, and what its journal has, as text for Prometheus.

Imported when somebody reads it first: nobody else needs the library. Source: Prometheus's text format, version 0.0.4,
and its rules for names.
"""

from collections.abc import Iterable, Iterator, Mapping
from errno import errorcode

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from potofs import times
from potofs.fuse.activity import BOUNDS, Activity
from potofs.journal.models import DialogueJournalStats
from potofs.journal.tally import Taken
from potofs.tree.system import Figures


def text(activity: Activity, present: Mapping[str, int], figures: Figures) -> bytes:
    """All of it; `present` is how many there are now of what is called so."""
    # A registry of our own: that of the whole process is everybody's.
    registry = CollectorRegistry(auto_describe=False)
    mount = [*_requests(activity), *_present(present), *_taken(figures.taken)]
    registry.register(_Collected([*mount, *_journal(figures.stats)]))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _requests(activity: Activity) -> Iterator[Metric]:
    requests = CounterMetricFamily("potofs_requests", "Requests answered.", labels=["operation"])
    errors = CounterMetricFamily("potofs_request_errors", "Requests that failed.", labels=["operation", "errno"])
    seconds = HistogramMetricFamily(
        "potofs_request_seconds", "How long it took to answer a request.", labels=["operation"]
    )
    for name, operation in sorted(activity.operations.items()):
        # Counted from one look at them, or the requests would not be as many as the histogram has.
        pieces = list(operation.pieces)
        buckets, count = [], 0
        for bound, piece in zip([*map(str, BOUNDS), "+Inf"], pieces, strict=True):
            count += piece
            buckets.append((bound, count))
        requests.add_metric([name], count)
        seconds.add_metric([name], buckets, operation.seconds)
        for number, failed in sorted(operation.failures.items()):
            errors.add_metric([name, errorcode.get(number, str(number))], failed)
    yield from (requests, errors, seconds)


def _present(present: Mapping[str, int]) -> Iterator[Metric]:
    for what, count in present.items():
        yield GaugeMetricFamily(f"potofs_{what.replace(' ', '_')}", f"{what.capitalize()} at present.", count)


def _taken(taken: Taken) -> Iterator[Metric]:
    yield CounterMetricFamily("potofs_appended_records", "Records stored through this mount.", taken.records)
    yield CounterMetricFamily("potofs_appended_bytes", "Bytes of those records.", taken.bytes)
    yield CounterMetricFamily("potofs_rejected", "Pieces that were no message, and were set aside.", taken.rejected)


def _journal(stats: DialogueJournalStats | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("potofs_backend_up", "Whether the backend answers.", stats is not None)
    if stats is None:
        return
    for name, what, value in (
        ("users", "Users.", stats.total_users),
        ("messages", "Messages in all conversations, archives included.", stats.total_messages),
        ("archived_conversations", "Archives of all users.", stats.total_archived_conversations),
        ("storage_bytes", "Bytes of all conversations as they are stored.", stats.storage_usage),
    ):
        yield GaugeMetricFamily(f"potofs_{name}", what, value)
    for name, what, moment in (
        ("oldest_message", "When the earliest message was said.", stats.oldest_message),
        ("newest_message", "When the latest message was said.", stats.newest_message),
        ("last_cleanup", "When the last clean-up ended.", stats.last_cleanup),
    ):
        moment_ns = None if moment is None else times.nanoseconds(moment)
        if moment_ns is not None:
            yield GaugeMetricFamily(f"potofs_{name}_timestamp_seconds", what, moment_ns / 10**9)
