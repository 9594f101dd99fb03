"""Messages, conversations and damage as Hypothesis makes them, and other parsers to read them with."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from potofs.errors import InvalidMessage
from potofs.journal import reading, yamldoc
from potofs.journal.message import ROLES, ChatMessage
from tests.bun import BUN

TIMESTAMP = "2024-01-15T10:30:00.000Z"

# Reads texts as JSON, writes what each is as YAML: its documents, or the parser's complaint.
_SCRIPT = """
const parsed = JSON.parse(await Bun.stdin.text()).map((text) => {
  try { return { value: Bun.YAML.parse(text) }; } catch (error) { return { error: String(error) }; }
});
console.log(JSON.stringify(parsed));
"""

#: What a parser takes for something else than text, or for the end of something, where it stands bare.
TRICKY = (
    *("yes", "No", "on", "y", "true", "False", "null", "Null", "~", "", ".inf", "-.INF", ".nan", "nan", "Infinity"),
    *("12:30", "1:2:3", "2024-01-15", "2024-01-15T10:30:00Z", "1e3", "0x1F", "0o17", "017", "1_000", "-1", "+.5", "1."),
    *("---", "...", "--- a", "-", "- a", "? a", ": a", "a:", "a: b", "a :b", "a #b", "#", "a#b", "# a", "%YAML 1.2"),
    *("<<", "=", "!tag", "!!str a", "&a", "*a", "|", "|-", ">", "@", "`", '"', "'", "\\", "\\n", '"a"', "'a'", "a\\"),
    *("{", "}", "[a]", "{a: b}", "a, b", ",", "[", "a]", "a}", "é", "Ünï: cödé", "日本語", "👋", "𝒳", "²", "½"),
    *("\x00", "\x07", "\x1b[0m", "\x7f", "\x80", "\x85", "\xa0", "\xad", "\u200b", "\u2028", "\u2029", "\ufeff"),
    *("\ue000", "\ufffd", "\ufffe", "\uffff", "\U0001ffff", "\U0010ffff", "\r", "\r\n", "\n", "\t", " ", "  ", "\x0b"),
    *("\n---\n", "\n...\n", "\n--- a\n", "\n# a\n", "\n\n", "\n \n", "\n\t", " \n", "\n  a"),
)

_LONG = ("a" * 3000, "a b " * 800, "é\n" * 700)


def _long_or(pieces: tuple[str, ...]) -> st.SearchStrategy[str]:
    """One of some texts, or sometimes a very long one."""
    return st.integers(0, len(pieces) + len(_LONG) - 1).map(lambda number: (*pieces, *_LONG)[number])


_pieces = st.one_of(_long_or(TRICKY), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
#: Any text at all, with what is difficult in YAML more often than chance would have it.
texts = st.one_of(_pieces, st.lists(_pieces, max_size=5).map("".join), st.lists(_pieces, max_size=5).map("\n".join))

# A key has to fit into 1024 characters, escapes included.
_keys = st.one_of(
    st.sampled_from(["model", "tokens", "sessionId", "yes", "a b", "a: b"]),
    texts.map(lambda text: text[:80]).filter(lambda text: text != "<<"),
)
_numbers = st.one_of(st.integers(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False))
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=6,
)
mappings = st.dictionaries(_keys, _values, max_size=4)
_extra = _keys.filter(lambda key: key not in {"role", "content", "timestamp", "metadata"})

timestamps = st.one_of(
    st.just(TIMESTAMP),
    st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z"),
    st.sampled_from(["2024-01-15", "2024-01-15 10:30", "2024-01-15t10:30:00,5+05:30", "2024-01-15\t10:30:00 -05"]),
)
messages = st.builds(
    ChatMessage,
    role=st.sampled_from(ROLES),
    content=texts,
    timestamp=timestamps,
    metadata=st.none() | mappings,
    extra=st.dictionaries(_extra, _values, max_size=2),
)
#: Messages that have nothing but what the quick way reads.
simple_messages = st.builds(
    ChatMessage,
    role=st.sampled_from(ROLES),
    content=texts,
    timestamp=st.just(TIMESTAMP),
    metadata=st.none()
    | st.dictionaries(
        st.sampled_from(["model", "tokens", "x_1", "yes"]),
        st.one_of(st.none(), st.booleans(), st.integers(-(10**17), 10**17), st.floats(0, 10**6), texts),
        min_size=1,
        max_size=3,
    ),
)


def mutated(original: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts in which a few characters were deleted, inserted or replaced."""
    snippets = _long_or(
        (
            *(
                " ",
                "\n",
                "\t",
                "\r",
                *":#-|\"'\\{}[],?&*!%@`~0x.eE+",
                "\n  ",
                "  ",
                ": ",
                " #",
                "---",
                "\n---\n",
                "...",
            ),
            *("|2", "|-", "|+", ">-", "role", "content", "metadata:\n", "timestamp", "null", "yes", '\\u0041"'),
            *("\\ud83d", "\\ue000", "\x85", "\x7f", "\u2028", "\ufeff", "\uffff", "\xa0", "\x00", "ä", " " * 1100),
        )
    )
    changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.just("") | snippets), max_size=4)

    def apply(text: str, changes: list[tuple[int, int, str]]) -> str:
        for place, deleted, inserted in changes:
            at = place % (len(text) + 1)
            text = text[:at] + inserted + text[at + deleted :]
        return text

    return st.builds(apply, original, changes)


def by_libyaml(text: str) -> ChatMessage | None:
    """The message of a document by the general way; None if it is refused."""
    try:
        return reading._from_mapping(yamldoc.load(text).items)
    except InvalidMessage:
        return None


def by_bun(texts: Sequence[str]) -> list[dict[str, Any]]:
    """What Bun makes of each text: {"value": …} or {"error": …}."""
    done = subprocess.run(
        [BUN, "-e", _SCRIPT], input=json.dumps(list(texts)).encode(), capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    parsed: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(parsed) == len(texts)
    return parsed


def as_json(message: ChatMessage) -> dict[str, Any]:
    """A message as one mapping, in the order in which it is written."""
    items: dict[str, Any] = {"role": message.role, "content": message.content, "timestamp": message.timestamp}
    if message.metadata is not None:
        items["metadata"] = message.metadata
    return {**items, **message.extra}
