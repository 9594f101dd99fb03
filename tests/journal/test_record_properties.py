"""Whatever is encoded comes back, by every parser; and the quick ways to read never differ from the general one."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from potofs.errors import InvalidMessage
from potofs.journal import reading, record
from potofs.journal.message import ChatMessage
from potofs.journal.stream import documents
from tests.journal.generated import (
    TIMESTAMP,
    TRICKY,
    as_json,
    by_bun,
    by_libyaml,
    messages,
    mutated,
    simple_messages,
    texts,
)

quick = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def document_of(message: ChatMessage) -> str:
    encoded = record.encode(message)
    assert encoded.endswith(b"\n---\n")
    return encoded.removesuffix(record.TERMINATOR).decode()


@quick
@given(messages)
def test_a_record_comes_back_as_the_message_it_was_made_of(message: ChatMessage) -> None:
    assert reading.parse(document_of(message).encode()) == message
    assert by_libyaml(document_of(message)) == message


@quick
@given(messages)
def test_a_record_is_one_committed_document(message: ChatMessage) -> None:
    encoded = record.encode(message)
    assert list(documents(encoded)) == [(0, len(encoded) - 4, len(encoded), True)]


@quick
@given(simple_messages)
def test_the_quick_way_reads_what_most_messages_are(message: ChatMessage) -> None:
    document = document_of(message)
    numbers = (message.metadata or {}).values()
    if any(isinstance(number, float) and "e" in repr(number) for number in numbers):
        assert record.decode(document) in (message, None)
    elif message.metadata and "yes" in message.metadata:
        assert record.decode(document) is None
    else:
        assert record.decode(document) == message


@quick
@given(messages)
def test_pyyaml_reads_a_record_alike_though_it_knows_yaml_1_1(message: ChatMessage) -> None:
    assert yaml.load(document_of(message), yaml.CSafeLoader) == as_json(message)


@pytest.mark.parametrize("content", TRICKY, ids=ascii)
def test_tricky_content_stays_the_text_it_is_for_pyyaml(content: str) -> None:
    loaded = yaml.load(document_of(ChatMessage("user", content, TIMESTAMP)), yaml.CSafeLoader)
    assert loaded == {"role": "user", "content": content, "timestamp": TIMESTAMP}


@settings(
    deadline=None,
    max_examples=5,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(messages, min_size=60, max_size=60))
@example([ChatMessage("tool", content, TIMESTAMP, {f"<{content[:80]}": content}) for content in TRICKY])
def test_bun_reads_records_alike(batch: list[ChatMessage]) -> None:
    for message, parsed in zip(batch, by_bun([document_of(message) for message in batch]), strict=True):
        assert through_json(parsed) == through_json({"value": as_json(message)}), message


def through_json(value: Any) -> Any:
    """A value as JavaScript has it and JSON writes it: every number a double, without infinities."""
    if isinstance(value, dict):
        return {key: through_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [through_json(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if abs(value) == float("inf") else float(value)
    return value


@quick
@given(texts, st.characters(categories=["Cs"]), texts)
def test_a_lone_surrogate_in_content_is_refused_by_its_name(before: str, surrogate: str, after: str) -> None:
    with pytest.raises(InvalidMessage, match=f"lone surrogate U\\+{ord(surrogate):04X}"):
        ChatMessage("user", before + surrogate + after)


@quick
@given(st.characters(categories=["Cs"]), st.booleans(), st.booleans())
def test_a_lone_surrogate_in_metadata_is_refused_by_its_name(surrogate: str, in_key: bool, deep: bool) -> None:
    metadata: dict[str, Any] = {surrogate: 1} if in_key else {"a": surrogate}
    message = ChatMessage("user", "x", TIMESTAMP, {"deep": [metadata]} if deep else metadata)
    with pytest.raises(InvalidMessage, match=f"lone surrogate U\\+{ord(surrogate):04X}"):
        record.encode(message)


@settings(quick, max_examples=700)
@given(mutated((messages | simple_messages).map(document_of)))
def test_the_quick_way_never_differs_from_the_general_one(document: str) -> None:
    try:
        message = record.decode(document)
    except InvalidMessage:
        assert by_libyaml(document) is None
        return
    assert message is None or by_libyaml(document) == message


def _json_forms(message: ChatMessage, indent: int | None, separators: tuple[str, str], newline: str) -> str:
    items = as_json(message)
    return json.dumps(items, ensure_ascii=False, indent=indent, separators=separators).replace("\n", newline)


json_documents = st.builds(
    _json_forms,
    messages,
    st.sampled_from([None, 0, 2]),
    st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]),
    st.sampled_from(["\n", "\r\n", "\n\t", "\r"]),
)


@settings(quick, max_examples=700)
@given(mutated(json_documents))
@example('\t{"role": "user", "content": "x"}')
@example('{"role"\n: "user", "content": "x"}')
@example('{"role": "user", "content": "x", "' + "k" * 2000 + '": 1}')
@example('{"role": "user", "content": "\uffff"}')
@example('{"role": "user", "content": "\x7f\\ue000"}')
@example('{"role": "user", "content": "x", "metadata": {"a": "\\ud800"}}')
@example('{"role": "user", "content": "x", "a": ' + "[" * 64 + "]" * 64 + "}")
@example('{"role": "user", "content": "x", "a": ' + "[" * 65 + "]" * 65 + "}")
@example('{"role": "user", "content": "x", "a": ' + "[" * 900 + "]" * 900 + "}")
@example('{"role": "user", "content": "x", "a": ' + "1" * 5000 + "}")
@example('{"role": "user", "content": "x", "a": [-0, -0.0, 1E5, 1e400, 1e-400]}')
def test_json_never_differs_from_the_general_way(document: str) -> None:
    if not document.lstrip(" \t\r\n").startswith("{"):
        return
    try:
        message = reading._from_json(document)
    except InvalidMessage:
        assert by_libyaml(document) is None
        return
    assert message is None or repr(by_libyaml(document)) == repr(message)


@quick
@given(texts, texts)
def test_json_with_every_character_escaped_is_the_message_too(content: str, value: str) -> None:
    """Python's json writes an emoji as two surrogates, which is JSON, and which libyaml refuses."""
    message = ChatMessage("user", content, TIMESTAMP, {"a": {f"<{value[:80]}": value}})
    assert reading.parse(json.dumps(as_json(message)).encode()) == message
