"""A message cannot be wrong."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from potofs.errors import InvalidMessage
from potofs.journal.message import ROLES, ChatMessage, mark
from tests.journal.generated import TIMESTAMP, messages
from tests.journal.test_record_properties import quick


@pytest.mark.parametrize("role", ROLES)
def test_the_four_roles_are_known(role: str) -> None:
    assert ChatMessage(role, "").role == role


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ({"role": "robot"}, "role 'robot' is unknown"),
        ({"role": ""}, "role '' is unknown"),
        ({"role": "User"}, "role 'User' is unknown"),
        ({"role": ["user"]}, "is unknown"),
        ({"content": None}, "content has to be text, not NoneType"),
        ({"content": b"x"}, "content has to be text, not bytes"),
        ({"content": "ab\udc80"}, "lone surrogate U\\+DC80 at character 2"),
        ({"timestamp": "yesterday"}, "timestamp 'yesterday' is not a time"),
        ({"timestamp": "\ud800"}, "is not a time"),
        ({"timestamp": datetime(2024, 1, 15, tzinfo=UTC)}, "timestamp has to be text, not datetime"),
        ({"timestamp": None}, "timestamp has to be text, not NoneType"),
        ({"metadata": [1]}, "metadata has to be a mapping, not list"),
        ({"extra": {"content": "twice"}}, "extra is for other keys"),
        ({"extra": {"metadata": {}}}, "extra is for other keys"),
    ],
    ids=str,
)
def test_what_no_conversation_can_hold_is_refused(items: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        ChatMessage(**{"role": "user", "content": "x", **items})


@quick
@given(messages, messages)
def test_a_fingerprint_is_of_role_content_and_timestamp_alone(one: ChatMessage, other: ChatMessage) -> None:
    bare = ChatMessage(one.role, one.content, one.timestamp)
    assert mark(one) == mark(bare)
    assert len(mark(one).fingerprint) == 16
    same = (one.role, one.content, one.timestamp) == (other.role, other.content, other.timestamp)
    assert (mark(one) == mark(other)) is same


def test_parts_of_a_fingerprint_do_not_run_into_each_other() -> None:
    assert mark(ChatMessage("user", f"{TIMESTAMP}\0x")) != mark(ChatMessage("user", "x", TIMESTAMP))


def test_messages_do_not_share_their_extra_keys() -> None:
    ChatMessage("user", "x").extra["a"] = 1
    assert ChatMessage("user", "x").extra == {}
