"""metadata.yaml, and the figures that are derived for it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from potofs import ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Archived
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.journal.summary import Summary, of_message

#: The conversation of the design document.
SAMPLE = """\
role: user
content: Hello, how are you today?
timestamp: "2024-01-15T10:30:00.000Z"
metadata:
  model: "gpt-4"
  tokens: 15
  processingTime: 1200
---
role: assistant
content: Hello! I'm doing well, thank you for asking. How can I help you today?
timestamp: "2024-01-15T10:30:02.500Z"
metadata:
  model: "gpt-4"
  tokens: 25
  processingTime: 1800
---
role: user
content: Can you help me with a coding problem?
timestamp: "2024-01-15T10:31:00.000Z"
metadata:
  model: "gpt-4"
  tokens: 12
  processingTime: 950
---
role: assistant
content: Of course! I'd be happy to help you with a coding problem.
timestamp: "2024-01-15T10:31:03.200Z"
metadata:
  model: "gpt-4"
  tokens: 35
  processingTime: 2100
"""
PROFILE = """\
userId: "user-12345"
createdAt: "2024-01-15T09:00:00.000Z"
preferences:
  defaultModel: "gpt-4"
  maxConversationLength: 1000
  archiveThreshold: 100
"""


def of(journal: DialogueJournal, user: str) -> Any:
    return yaml.safe_load(journal.user_metadata(user))


@pytest.fixture
def files(root: Path) -> Callable[[str], Path]:
    """The folder of a user on disk, with dialogs/ in it."""

    def files(user: str) -> Path:
        folder = root / "users" / user
        (folder / "dialogs").mkdir(parents=True, exist_ok=True)
        return folder

    return files


def test_the_documents_own_user_has_the_documents_figures(
    journal: DialogueJournal, files: Callable[[str], Path]
) -> None:
    folder = files("user-12345")
    (folder / "dialogs/current.yaml").write_text(SAMPLE)
    (folder / "metadata.yaml").write_text(PROFILE)
    assert list(of(journal, "user-12345").items()) == [
        ("userId", "user-12345"),
        ("createdAt", "2024-01-15T09:00:00.000Z"),
        ("lastActivity", "2024-01-15T10:31:03.200Z"),
        ("totalMessages", 4),
        ("preferences", {"defaultModel": "gpt-4", "maxConversationLength": 1000, "archiveThreshold": 100}),
        (
            "statistics",
            # The mean of what the assistant took: 1800 and 2100.
            {"userMessages": 2, "assistantMessages": 2, "averageResponseTime": 1950, "totalTokens": 87},
        ),
    ]


def test_a_new_user_has_a_time_and_no_figures(journal: DialogueJournal) -> None:
    journal.create_user("yes: a/b")
    found = of(journal, "yes: a/b")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("createdAt"))
    assert found == {
        "userId": "yes: a/b",
        "lastActivity": None,
        "totalMessages": 0,
        "statistics": {"userMessages": 0, "assistantMessages": 0, "averageResponseTime": None, "totalTokens": 0},
    }


def test_a_user_whom_another_program_made_began_with_the_first_message(
    journal: DialogueJournal, files: Callable[[str], Path]
) -> None:
    (files("mia") / "dialogs/current.yaml").write_text(SAMPLE)
    assert of(journal, "mia")["createdAt"] == "2024-01-15T10:30:00.000Z"


@pytest.mark.parametrize("profile", [b"", b"- [", b"\xff", b"createdAt: {}\npreferences: none\n"])
def test_a_damaged_profile_hides_no_figures(
    journal: DialogueJournal, files: Callable[[str], Path], profile: bytes
) -> None:
    folder = files("mia")
    (folder / "dialogs/current.yaml").write_text(SAMPLE)
    (folder / "metadata.yaml").write_bytes(profile)
    found = of(journal, "mia")
    assert (found["totalMessages"], found["createdAt"]) == (4, "2024-01-15T10:30:00.000Z")
    assert "preferences" not in found


def test_figures_follow_every_append_and_archives_count(journal: DialogueJournal) -> None:
    for number in range(1, 251):
        role = ("user", "assistant", "system", "tool")[number % 4]
        journal.add_message("mia", ChatMessage(role, str(number), metadata={"tokens": number}))
        if number % 25 == 0:
            found = of(journal, "mia")
            assert found["totalMessages"] == number
            assert found["statistics"]["totalTokens"] == number * (number + 1) // 2
    assert len(journal.backend.archives("mia")) == 2
    assert found["statistics"]["assistantMessages"] == 63
    assert found["statistics"]["userMessages"] == 62


def test_figures_are_the_same_remembered_or_reckoned_anew(journal: DialogueJournal, root: Path) -> None:
    for number in range(150):
        journal.add_message("mia", ChatMessage("assistant", str(number), metadata={"processingTime": number}))
        if number % 40 == 0:
            of(journal, "mia")
    with open_journal(f"file://{root}") as other:
        assert other.user_metadata("mia") == journal.user_metadata("mia")


def test_a_message_that_came_in_pieces_counts_once(journal: DialogueJournal, files: Callable[[str], Path]) -> None:
    current = files("mia") / "dialogs/current.yaml"
    counts = []
    for piece in (SAMPLE, "---\n", SAMPLE[:20], SAMPLE[20:]):
        with current.open("a") as file:
            file.write(piece)
        counts.append(of(journal, "mia")["totalMessages"])
    assert counts == [4, 4, 4, 8]


def test_other_bytes_under_the_same_number_are_reckoned_anew(
    journal: DialogueJournal, files: Callable[[str], Path]
) -> None:
    current = files("mia") / "dialogs/current.yaml"
    current.write_text(SAMPLE + "---\n")
    assert of(journal, "mia")["statistics"]["totalTokens"] == 87
    os.truncate(current, 0)
    assert of(journal, "mia")["totalMessages"] == 0
    for old, new in (("tokens: 35", "tokens: 36"), ("10:31:03.200Z", "10:31:04.200Z")):
        with current.open("r+") as file:
            file.write(SAMPLE.replace(old, new) + "---\n")
        assert of(journal, "mia")["statistics"]["totalTokens"] in (88, 87)
    assert of(journal, "mia")["lastActivity"] == "2024-01-15T10:31:04.200Z"


def test_a_conversation_archived_while_somebody_looks_counts_once(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for when in ("before", "after"):
        journal.add_message(when, ChatMessage("user", "a"))
        listed = FilesystemBackend.archives

        def archives(backend: FilesystemBackend, user: str, when: str = when) -> list[Archived]:
            monkeypatch.undo()
            if when == "before":
                backend.archive(user)
                return backend.archives(user)
            found = backend.archives(user)
            backend.archive(user)
            return found

        monkeypatch.setattr(FilesystemBackend, "archives", archives)
        assert of(journal, when)["totalMessages"] == 1
        assert FilesystemBackend.archives is listed


@pytest.mark.parametrize(
    ("figure", "tokens", "answers"),
    [
        *[("5", 5, 1), ("-1", -1, 1), ("0", 0, 1), ("1.5", 0, 1), (".inf", 0, 0), ("-.inf", 0, 0), (".nan", 0, 0)],
        *[("true", 0, 0), ("null", 0, 0), ("many", 0, 0), ("[1]", 0, 0), ("1" * 400, 0, 0), ("1e308", 0, 0)],
    ],
)
def test_metadata_may_hold_anything_and_only_figures_count(
    journal: DialogueJournal, files: Callable[[str], Path], figure: str, tokens: int, answers: int
) -> None:
    (files("mia") / "dialogs/current.yaml").write_text(
        "role: assistant\ncontent: a\ntimestamp: 2024-01-15T10:30:00Z\nmetadata:\n"
        f"  tokens: {figure}\n  processingTime: {figure}\n---\n"
    )
    statistics = of(journal, "mia")["statistics"]
    assert statistics["assistantMessages"] == 1
    assert statistics["totalTokens"] == tokens
    assert (statistics["averageResponseTime"] is not None) == bool(answers)


def test_summaries_add_up() -> None:
    user = of_message(ChatMessage("user", "a", "2024-01-15T10:30:00Z", {"tokens": 1, "processingTime": 900}))
    answer = of_message(ChatMessage("assistant", "b", "2024-01-15T10:29:00Z", {"tokens": 2, "processingTime": 5}))
    assert (user + answer) == (answer + user)
    assert (Summary() + user) == user
    assert (user + answer) == Summary(
        user_messages=1,
        assistant_messages=1,
        tokens=3,
        response_time=5,
        responses=1,
        first_ns=1_705_314_540_000_000_000,
        last_ns=1_705_314_600_000_000_000,
    )
    assert (user + answer).messages == 2
