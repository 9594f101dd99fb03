"""The four health checks: each has a status, and says why it is not healthy."""

import time
from pathlib import Path
from typing import Any

import pytest

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Fence, Usage
from potofs.errors import DeadlineExceeded
from potofs.journal.health import Health
from potofs.journal.models import CleanupOptions

HOUR = 3600 * 10**9


def test_a_journal_that_is_well_is_healthy(journal: DialogueJournal) -> None:
    journal.add_message("mia", ChatMessage("user", "hello"))
    report = Health(journal.backend).report()
    assert [report[check]["status"] for check in ("storage", "integrity", "cleanup")] == ["healthy"] * 3
    assert report["integrity"]["conversationsLookedAt"] == 1
    assert report["performance"]["responseMs"] >= 0
    assert report["backend"] == "filesystem"
    assert report["url"].startswith("file:///")


@pytest.mark.parametrize(
    ("usage", "status"),
    [
        (Usage(4096, 100, 0, 0), "unhealthy"),
        (Usage(4096, 100, 4, 4), "degraded"),
        (Usage(4096, 100, 50, 50), "healthy"),
    ],
)
def test_a_place_without_room_is_not_healthy(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch, usage: Usage, status: str
) -> None:
    monkeypatch.setattr(journal.backend, "usage", lambda: usage)
    report = Health(journal.backend).report()
    assert report["storage"]["status"] == status
    assert ("reason" in report["storage"]) is (status != "healthy")


def test_a_journal_that_takes_no_changes_is_degraded(journal: DialogueJournal) -> None:
    journal.backend.set_fence(Fence("moved", 1, "redis://:s3cret@host/0"))
    report = Health(journal.backend).report()
    assert report["status"] == report["storage"]["status"] == "degraded"
    assert "s3cret" not in str(report)


def test_a_backend_that_does_not_answer_is_asked_once(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fence() -> Fence:
        asked.append(1)
        raise DeadlineExceeded("no answer after 5 s")

    for question in ("fence", "usage", "users", "log_size", "read_log"):
        monkeypatch.setattr(journal.backend, question, fence)
    report = Health(journal.backend).report()
    assert len(asked) == 1
    assert {report[check]["status"] for check in ("storage", "integrity", "performance", "cleanup")} == {"unhealthy"}
    assert report["storage"]["reason"] == "no answer after 5 s"


def test_damage_is_found_sooner_or_later_and_forgotten_when_it_is_mended(journal: DialogueJournal, root: Path) -> None:
    for number in range(12):
        journal.add_message(f"user-{number}", ChatMessage("user", "hello"))
    current = root / "users/user-7/dialogs/current.yaml"
    whole = current.read_bytes()
    with current.open("ab") as file:
        file.write(b"no message\n---\n")
    health = Health(journal.backend)

    def after_a_round() -> dict[str, Any]:
        reports = [health.report() for _ in range(4)]
        assert all(report["integrity"]["conversationsLookedAt"] for report in reports)
        return dict(reports[-1]["integrity"])

    report = after_a_round()
    assert (report["status"], report["damaged"]) == ("degraded", 1)
    assert "user 'user-7'" in report["reason"]
    current.write_bytes(whole)
    assert after_a_round()["status"] == "healthy"


def test_of_a_long_conversation_the_end_is_looked_at(journal: DialogueJournal, root: Path) -> None:
    with open_journal(f"file://{root}?archiveThreshold=0&maxConversationLength=0") as endless:
        endless.add_messages("mia", [ChatMessage("user", f"{number} ".ljust(1000, "x")) for number in range(300)])
        assert Health(endless.backend).report()["integrity"]["status"] == "healthy"
        endless.add_message("max", ChatMessage("user", "x" * 200_000))
        assert Health(endless.backend).report()["integrity"]["status"] == "healthy"


def test_clean_ups_that_do_not_come_are_missed(journal: DialogueJournal) -> None:
    now = time.time_ns()
    health = Health(journal.backend, lambda: now)
    assert health.report()["cleanup"] == {"status": "healthy", "lastCleanup": None}
    now += 49 * HOUR
    assert health.report()["cleanup"]["reason"] == "none for 49 hours"
    journal.cleanup(CleanupOptions())
    now = time.time_ns() + HOUR
    assert health.report()["cleanup"]["status"] == "healthy"
    now += 50 * HOUR
    assert health.report()["cleanup"]["status"] == "degraded"
