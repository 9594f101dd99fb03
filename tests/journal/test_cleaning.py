"""Cleaning up: what is idle is archived, what is old is compressed, nothing is ever deleted."""

import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potofs import Capability, ChatMessage, CleanupOptions, CleanupResult, DialogueJournal, open_journal
from potofs.backends.base import Fence
from potofs.backends.registry import open_backend
from potofs.config import Limits, parse
from potofs.errors import Fenced, NotFound, WouldBlock
from potofs.journal import admission, reading, record
from potofs.journal.cleaning import clean
from tests.journal.archiving import ArchivingBackend, everything

HOUR = 3600 * 10**9
DAY = 24 * HOUR
#: 2024-03-01T00:00:00.000Z
NOW = 1_709_251_200 * 10**9
HELLO = record.encode(ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z"))
NEVER = CleanupOptions(max_age_hours=0, max_inactive_hours=0)
COUNTS = ("users", "archived", "compressed", "bytes_saved", "due_by_retention", "due_by_count", "errors")


@pytest.fixture
def backend() -> ArchivingBackend:
    return ArchivingBackend()


def cleaned(backend: ArchivingBackend, options: CleanupOptions, limits: Limits | None = None) -> CleanupResult:
    """Cleans up at the time of NOW."""
    backend.limits = limits or Limits()
    return clean(backend, options, lambda: NOW)


def counts(result: CleanupResult) -> dict[str, int]:
    """What it counted, if anything."""
    return {name: getattr(result, name) for name in COUNTS if getattr(result, name)}


def hold(backend: ArchivingBackend, user: str, idle_hours: float, archive: str | None = None) -> None:
    """Stores a conversation to which nothing was appended for so long."""
    mtime_ns = NOW - round(idle_hours * HOUR)
    if archive is None:
        backend.put_current(user, HELLO, mtime_ns)
    else:
        backend.put_archive(user, archive, HELLO, mtime_ns)


# Archiving


def test_a_conversation_is_archived_once_it_is_idle_past_the_hours(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 720.01)
    hold(backend, "noah", 719.99)
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 2, "archived": 1}
    with pytest.raises(NotFound):
        backend.stat("mia")
    (archive,) = backend.archives("mia")
    with backend.open("mia", archive.name) as reader:
        assert reader.read_all() == HELLO
    assert backend.stat("noah").size == len(HELLO)
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 2}


def test_hours_of_zero_mean_never(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 10**6)
    hold(backend, "mia", 10**6, "old")
    before = everything(backend)
    assert counts(cleaned(backend, NEVER)) == {"users": 1}
    assert everything(backend) == before


def test_a_user_without_a_conversation_is_nothing_to_clean(backend: ArchivingBackend) -> None:
    backend.create_user("mia", b"")
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1}


def test_on_files_idle_conversations_are_archived(journal: DialogueJournal) -> None:
    for user, hours in (("mia", 721), ("noah", 719)):
        journal.add_message(user, ChatMessage("user", "Hello"))
        journal.backend.set_times(user, None, time.time_ns() - hours * HOUR)
    result = journal.cleanup(CleanupOptions(max_age_hours=0))
    assert counts(result) == {"users": 2, "archived": 1}
    assert journal.get_conversation("mia") == []
    assert len(journal.get_archived_conversations("mia")) == 1
    assert len(journal.get_conversation("noah")) == 1


def test_where_there_is_no_archival_nothing_is_forgotten() -> None:
    with open_journal("memory:") as journal:
        journal.backend.put_current("mia", HELLO, 0)
        assert counts(journal.cleanup()) == {"users": 1}
        assert journal.read_bytes("mia") == HELLO


# Compressing


def test_archives_past_the_age_are_compressed_once(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 168.01, "old")
    hold(backend, "mia", 167.99, "young")
    # The time in the name decides, whenever it was appended to last.
    hold(backend, "mia", 0, "20240101T000000.000Z")
    hold(backend, "mia", 10**4, "20240229T000000.000Z-2")
    saved = 2 * (len(HELLO) - len(HELLO) // 2)
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1, "compressed": 2, "bytes_saved": saved}
    assert backend.compressed == {("mia", "old"), ("mia", "20240101T000000.000Z")}
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1}


def test_what_was_archived_just_now_is_not_old(backend: ArchivingBackend) -> None:
    backend.put_current("mia", HELLO, time.time_ns() - 800 * HOUR)
    backend.limits = Limits(retention_days=1)
    result = clean(backend, CleanupOptions(max_age_hours=1))
    assert counts(result) == {"users": 1, "archived": 1}


def test_an_archive_that_does_not_get_smaller_is_not_counted(
    backend: ArchivingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(backend, "mia", 200, "old")
    monkeypatch.setattr(backend, "compress", lambda user, archive: 0)
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1}


def test_where_there_is_no_compression_archives_stay_as_they_are(backend: ArchivingBackend) -> None:
    backend.capabilities = ArchivingBackend.capabilities - {Capability.COMPRESSION}
    hold(backend, "mia", 200, "old")
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1}
    assert backend.compressed == set()


# Limits


def test_what_is_past_a_limit_is_counted_and_stays(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 1)
    for number in range(4):
        hold(backend, "mia", 24 * 10 * number, f"archive-{number}")
    hold(backend, "noah", 1)
    before = everything(backend)
    result = cleaned(backend, NEVER, Limits(retention_days=15, conversations_per_user=2))
    assert counts(result) == {"users": 2, "due_by_retention": 2, "due_by_count": 3}
    assert everything(backend) == before


def test_a_conversation_that_was_archived_counts_once(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 1000)
    hold(backend, "mia", 1, "one")
    limits = Limits(conversations_per_user=1)
    planned = cleaned(backend, CleanupOptions(dry_run=True), limits)
    assert counts(planned) == counts(cleaned(backend, CleanupOptions(), limits))
    assert planned.due_by_count == 1


@pytest.mark.parametrize(
    ("url", "limits"),
    [
        ("file:///tmp/x", Limits(0, 365, 50)),
        ("file:///tmp/x?retentionDays=7&maxConversationsPerUser=3&fsync=never", Limits(0, 7, 3)),
        ("memory:?maxConversationsPerUser=3", Limits(0, 0, 3)),
        ("redis://127.0.0.1:1", Limits(86400, 365, 50)),
        ("redis://127.0.0.1:1?ttlSeconds=0&retentionDays=0", Limits(0, 0, 50)),
    ],
)
def test_limits_are_those_of_the_backends_settings(url: str, limits: Limits) -> None:
    backend = open_backend(parse(url), reading.marks)
    assert backend.limits == limits
    backend.close()


@pytest.mark.parametrize(
    ("idle_seconds", "hours", "archived"), [(7200, 720, 1), (7200, 0, 1), (0, 2, 1), (14400, 2, 1), (14400, 720, 0)]
)
def test_what_is_idle_for_longer_than_either_says_is_archived(
    backend: ArchivingBackend, idle_seconds: int, hours: float, archived: int
) -> None:
    hold(backend, "mia", 3)
    result = cleaned(backend, CleanupOptions(max_inactive_hours=hours), Limits(idle_seconds=idle_seconds))
    assert result.archived == archived


def test_a_journal_cleans_up_by_its_own_limits(backend: ArchivingBackend) -> None:
    for number in range(3):
        backend.put_archive("mia", f"archive-{number}", HELLO, time.time_ns() - 3 * DAY)
    backend.limits = Limits(retention_days=2, conversations_per_user=1)
    journal = DialogueJournal(backend)
    assert counts(journal.cleanup()) == {"users": 1, "due_by_retention": 3, "due_by_count": 2}


# A dry run, the log


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 1000)
    hold(backend, "mia", 200, "old")
    hold(backend, "noah", 200, "older")
    before = everything(backend)
    result = cleaned(backend, CleanupOptions(dry_run=True))
    assert counts(result) == {"users": 2, "archived": 1, "compressed": 2}
    assert everything(backend) == before
    done = cleaned(backend, CleanupOptions())
    assert (done.archived, done.compressed) == (result.archived, result.compressed)


def test_a_clean_up_is_one_line_of_json_for_the_log_and_a_dry_run_none(backend: ArchivingBackend) -> None:
    backend.put_current("mia", HELLO, 0)
    journal = DialogueJournal(backend)
    journal.cleanup(CleanupOptions(dry_run=True))
    assert backend.log_size() == 0
    results = [journal.cleanup() for _ in range(2)]
    lines = backend.read_log(0, backend.log_size()).splitlines()
    assert lines == [result.to_json().encode() for result in results]
    assert [json.loads(line)["archived"] for line in lines] == [1, 0]
    assert results[0].duration_ms < 60_000


def test_the_last_clean_up_is_told_whichever_program_did_it(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/journal"
    with open_journal(url) as one, open_journal(url) as other:
        assert one.get_stats().last_cleanup is None
        result = other.cleanup()
        last = one.get_stats().last_cleanup
        assert last is not None
        assert result.started_at <= last
        one.backend.append_log(b"whatever somebody else writes\n")
        assert other.get_stats().last_cleanup == last


@pytest.mark.expects_warning("could not be written into cleanup.log: No space left")
def test_a_clean_up_whose_log_cannot_be_written_is_done_and_says_so(
    backend: ArchivingBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backend, "append_log", refuse)
    backend.put_current("mia", HELLO, 0)
    result = DialogueJournal(backend).cleanup()
    assert result.archived == 1
    assert result.to_json() in caplog.text


# Mistakes, races


@pytest.mark.expects_warning("clean-up of user 'noah': (the disk is gone|somebody is at work)")
@pytest.mark.parametrize("error", [OSError("the disk is gone"), WouldBlock("somebody is at work")])
def test_the_mistake_of_one_user_is_counted_and_does_not_stop_the_others(
    backend: ArchivingBackend, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for user in ("mia", "noah", "zoe"):
        hold(backend, user, 1000)
    archive = backend.archive

    def failing(user: str, *args: Any, **options: Any) -> str:
        if user == "noah":
            raise error
        return archive(user, *args, **options)

    monkeypatch.setattr(backend, "archive", failing)
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 3, "archived": 2, "errors": 1}


def test_what_another_server_was_quicker_to_do_is_stepped_over(
    backend: ArchivingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(backend, "mia", 1000)
    hold(backend, "mia", 200, "old")
    archive = backend.archive
    monkeypatch.setattr(backend, "archive", first(archive, lambda: archive("mia")))
    monkeypatch.setattr(backend, "compress", first(backend.compress, lambda: backend.kept.pop(("mia", "old"))))
    assert counts(cleaned(backend, CleanupOptions())) == {"users": 1}


@pytest.mark.parametrize("quicker", [False, True])
def test_what_goes_on_meanwhile_stays_the_running_conversation(
    backend: ArchivingBackend, monkeypatch: pytest.MonkeyPatch, quicker: bool
) -> None:
    hold(backend, "mia", 1000)
    archive = backend.archive

    def goes_on() -> None:
        if quicker:
            archive("mia", "by another server")
        backend.append("mia", [admission.from_message(ChatMessage("user", "Wait!"))])

    monkeypatch.setattr(backend, "archive", first(archive, goes_on))
    assert cleaned(backend, CleanupOptions()).archived == 0
    with backend.open("mia") as reader:
        assert b"Wait!" in reader.read_all()


def test_a_frozen_journal_is_not_cleaned_but_may_be_looked_at(backend: ArchivingBackend) -> None:
    hold(backend, "mia", 1000)
    backend.set_fence(Fence("frozen", 1))
    with pytest.raises(Fenced):
        cleaned(backend, CleanupOptions())
    assert cleaned(backend, CleanupOptions(dry_run=True)).archived == 1
    assert backend.archives("mia") == []


def test_a_journal_that_freezes_meanwhile_ends_the_clean_up(
    backend: ArchivingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("mia", "noah"):
        hold(backend, user, 1000)
    monkeypatch.setattr(backend, "archive", first(backend.archive, lambda: backend.set_fence(Fence("frozen", 1))))
    with pytest.raises(Fenced):
        cleaned(backend, CleanupOptions())
    assert backend.kept == {}


def test_stopped_anywhere_it_is_finished_by_the_next_one(backend: ArchivingBackend) -> None:
    for number in range(6):
        hold(backend, f"user-{number}", 1000)
        hold(backend, f"user-{number}", 200, "old")
    told = 0

    def clock() -> int:
        nonlocal told
        told += 1
        if told == 5:
            raise KeyboardInterrupt
        return NOW

    with pytest.raises(KeyboardInterrupt):
        clean(backend, CleanupOptions(), clock)
    done = len(backend.compressed)
    assert 0 < done < 6
    assert counts(cleaned(backend, CleanupOptions())) | {"bytes_saved": 0} == {
        "users": 6,
        "archived": 6 - done,
        "compressed": 6 - done,
        "bytes_saved": 0,
    }


def test_two_at_once_do_everything_once(backend: ArchivingBackend) -> None:
    for number in range(50):
        hold(backend, f"user-{number}", 1000)
        hold(backend, f"user-{number}", 200, "old")
    results: list[CleanupResult] = []
    both = threading.Barrier(2)

    def work() -> None:
        both.wait()
        results.append(cleaned(backend, CleanupOptions()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.archived for result in results) == 50
    assert sum(result.errors for result in results) == 0
    assert len(backend.kept) == 100


def first(call: Callable[..., Any], before: Callable[[], object]) -> Callable[..., Any]:
    """The same call, with something else happening just before it."""

    def with_it(*args: Any, **options: Any) -> Any:
        before()
        return call(*args, **options)

    return with_it
