"""What the journal takes and answers, as values and as the document's JSON."""

import json
from typing import Any

import msgspec
import pytest

from potofs import ArchivedConversation, CleanupOptions, CleanupResult, DialogueJournalStats, PotoUser
from potofs.errors import ConfigError, InvalidName, NameTooLong
from potofs.journal.models import Model, id_of

TIME = "2024-01-15T10:30:00.000Z"
#: One of each, with every field, and how the document writes it.
EXAMPLES: list[tuple[Model, dict[str, Any]]] = [
    (PotoUser("mia", "Mia"), {"id": "mia", "name": "Mia"}),
    (
        ArchivedConversation(
            id="refund",
            user_id="mia",
            archived_at=TIME,
            message_count=2,
            first_message_time=TIME,
            last_message_time=TIME,
            size=120,
            tags=("paid",),
        ),
        {
            "id": "refund",
            "userId": "mia",
            "archivedAt": TIME,
            "messageCount": 2,
            "firstMessageTime": TIME,
            "lastMessageTime": TIME,
            "size": 120,
            "tags": ["paid"],
        },
    ),
    (
        DialogueJournalStats(
            total_users=2,
            total_messages=5,
            total_archived_conversations=1,
            average_messages_per_user=2.5,
            storage_usage=900,
            oldest_message=TIME,
            newest_message=TIME,
            backend="memory",
            last_cleanup=TIME,
        ),
        {
            "totalUsers": 2,
            "totalMessages": 5,
            "totalArchivedConversations": 1,
            "averageMessagesPerUser": 2.5,
            "storageUsage": 900,
            "oldestMessage": TIME,
            "newestMessage": TIME,
            "backend": "memory",
            "lastCleanup": TIME,
        },
    ),
    (
        CleanupOptions(max_age_hours=1, max_inactive_hours=0.5, dry_run=True),
        {"maxAgeHours": 1, "maxInactiveHours": 0.5, "dryRun": True},
    ),
    (
        CleanupResult(
            started_at=TIME,
            duration_ms=7,
            dry_run=False,
            users=3,
            archived=1,
            compressed=2,
            bytes_saved=400,
            due_by_retention=0,
            due_by_count=4,
            errors=0,
        ),
        {
            "startedAt": TIME,
            "durationMs": 7,
            "dryRun": False,
            "users": 3,
            "archived": 1,
            "compressed": 2,
            "bytesSaved": 400,
            "dueByRetention": 0,
            "dueByCount": 4,
            "errors": 0,
        },
    ),
]
each = pytest.mark.parametrize(("model", "form"), EXAMPLES, ids=lambda value: type(value).__name__)


@each
def test_a_model_is_written_and_read_in_the_documents_form(model: Model, form: dict[str, Any]) -> None:
    assert json.loads(model.to_json()) == form
    assert type(model).from_json(json.dumps(form)) == model
    assert type(model).from_json(model.to_json().encode()) == model


@each
def test_a_model_cannot_be_changed(model: Model, form: dict[str, Any]) -> None:
    field = msgspec.structs.fields(model)[0].name
    with pytest.raises(AttributeError):
        setattr(model, field, getattr(model, field))


@each
def test_the_schema_of_a_model_has_its_fields(model: Model, form: dict[str, Any]) -> None:
    (schema,) = type(model).json_schema()["$defs"].values()
    assert set(schema["properties"]) == set(form)


@each
def test_a_field_of_the_wrong_type_is_named(model: Model, form: dict[str, Any]) -> None:
    name = next(iter(form))
    with pytest.raises(ConfigError, match=f"{type(model).__name__}: {name}: "):
        type(model).from_json(json.dumps({**form, name: []}))


def test_what_is_not_known_is_left_out() -> None:
    bare = DialogueJournalStats(
        total_users=0,
        total_messages=0,
        total_archived_conversations=0,
        average_messages_per_user=0,
        storage_usage=0,
        backend="memory",
    )
    assert set(json.loads(bare.to_json())).isdisjoint({"oldestMessage", "newestMessage", "lastCleanup"})


@pytest.mark.parametrize("text", ["", "{", "[]", b"\xff", '{"id": "\\ud800"}', "{}", '{"name": "Mia"}'])
def test_what_is_no_user_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigError, match="not the JSON of PotoUser: "):
        PotoUser.from_json(text)


def test_of_an_applications_user_only_id_and_name_are_read() -> None:
    assert PotoUser.from_json('{"id": "mia", "email": "m@example.org", "roles": ["a"]}') == PotoUser("mia")
    assert id_of(PotoUser("mia", "Mia")) == id_of("mia") == "mia"


def test_an_id_that_no_journal_can_have_is_refused() -> None:
    wrong: Any = 7
    for user, error in (("", InvalidName), ("\ud800", InvalidName), ("a" * 256, NameTooLong), (wrong, ConfigError)):
        with pytest.raises(error):
            PotoUser(user)


def test_a_clean_up_has_the_configurations_defaults() -> None:
    assert CleanupOptions() == CleanupOptions(max_age_hours=168, max_inactive_hours=720, dry_run=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_age_hours": -1},
        {"max_inactive_hours": float("nan")},
        {"max_age_hours": "1"},
        {"max_age_hours": True},
        {"dry_run": 1},
        {"dry_run": None},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be|has to be 0 or more"):
        CleanupOptions(**wrong)
    with pytest.raises(ConfigError):
        CleanupOptions.from_json('{"dryrun": true}')
