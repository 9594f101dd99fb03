"""A message's values as JSON: whatever can be stored comes back the same."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from potofs.errors import InvalidMessage
from potofs.journal import jsontext
from potofs.journal.message import ChatMessage
from tests.journal.generated import TIMESTAMP, mappings, messages, texts

TAG = "$numberDouble"
tags = st.sampled_from([TAG, f"${TAG}", f"$$${TAG}", "numberDouble", "$number"])
numbers = st.floats() | st.integers(-(10**400), 10**400)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tags | texts, inner, max_size=2),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal, types and signs of zero included; NaN is itself."""
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(values)
@example(float("nan"))
@example({TAG: "NaN"})
@example({TAG: float("nan")})
@example({f"${TAG}": {TAG: 1}})
@example({TAG: "NaN", "b": 1})
def test_every_value_comes_back_the_same(value: Any) -> None:
    assert same(jsontext.loads(jsontext.dumps(value)), value)


@given(values)
def test_what_is_written_is_json_to_everybody_on_one_line(value: Any) -> None:
    text = jsontext.dumps(value)
    json.loads(text, parse_constant=pytest.fail)
    assert "\n" not in text


def test_numbers_that_json_lacks_are_written_as_extended_json_does() -> None:
    assert jsontext.dumps([math.inf, -math.inf, math.nan]) == (
        '[{"$numberDouble": "Infinity"}, {"$numberDouble": "-Infinity"}, {"$numberDouble": "NaN"}]'
    )
    assert jsontext.loads('{"$numberDouble": "1.5"}') == {TAG: "1.5"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("[NaN]", 'NaN is no JSON: write {"$numberDouble": "NaN"}'),
        ("-Infinity", "-Infinity is no JSON"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 5000, "more digits than can be read"),
    ],
)
def test_what_is_read_differently_elsewhere_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason.replace("{", "\\{").replace("$", "\\$")):
        jsontext.loads(text)


def test_a_value_that_json_lacks_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (object(), b"x", {"a": {1, 2}}, circle):
        with pytest.raises(InvalidMessage, match="cannot be written as JSON"):
            jsontext.dumps(value)


@given(messages, mappings)
def test_a_message_comes_back_from_its_json(message: ChatMessage, metadata: dict[str, Any]) -> None:
    for one in (message, ChatMessage(message.role, message.content, "", metadata)):
        assert ChatMessage.from_json(one.to_json()) == one


def test_a_message_as_json_has_the_documents_form() -> None:
    message = ChatMessage("user", "Grüße\n", TIMESTAMP, {"tokens": 2}, {"name": "Mia"})
    assert message.to_json() == (
        '{"role": "user", "content": "Grüße\\n", "timestamp": "2024-01-15T10:30:00.000Z", '
        '"metadata": {"tokens": 2}, "name": "Mia"}'
    )
    assert ChatMessage("user", "").to_json() == '{"role": "user", "content": ""}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "line 1, column 2: Expecting property name"),
        ("[]", "a message has to be an object"),
        ('{"$numberDouble": "NaN"}', "a message has to be an object"),
        ('{"content": "a"}', "the key role is missing"),
        ('{"role": "user"}', "the key content is missing"),
        ('{"role": "user", "content": 1}', "content has to be text"),
        ('{"role": "user", "content": "", "metadata": []}', "metadata has to be a mapping"),
    ],
)
def test_json_that_is_no_message_is_refused(text: str, error: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        ChatMessage.from_json(text)
    assert str(caught.value).startswith(error)


def test_the_schema_of_a_message_asks_for_role_and_content_and_takes_other_keys() -> None:
    schema = ChatMessage.json_schema()
    (form,) = schema["$defs"].values()
    assert form["required"] == ["role", "content"]
    assert set(form["properties"]) == {"role", "content", "timestamp", "metadata"}
    assert "additionalProperties" not in form
