"""One YAML document as plain values, by libyaml: the general way to read what the record format's quick way does not.

Scalars follow the YAML 1.2 core schema (`yes` and `12:30` are text, `0o17` is a number), though PyYAML knows 1.1.
Anchors, aliases, tags and duplicate keys are errors: a message has no use for them, and each is read differently
somewhere. Keys are always text.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from potofs.errors import InvalidMessage

# libyaml reads these characters as YAML 1.1 does (a line break, or an error), where 1.2 and JSON have them stand for
# themselves.
_READ_DIFFERENTLY = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")
# Private characters that stand in for them while libyaml looks at the text.
_STAND_INS = range(0xE000, 0xF8FF)

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
}
#: Deeper nesting than any message needs, far from Python's own limit.
DEPTH = 64
# Digits of a number that Python converts without complaint (sys.int_info.default_max_str_digits).
_DIGITS = 4300


class Scalar(NamedTuple):
    """A scalar as it was written; its value is decided by whoever knows what it is for."""

    text: str
    plain: bool

    def value(self) -> Any:
        """Its value by the core schema: text, number, boolean or None."""
        if not self.plain:
            return self.text
        if self.text in _SPECIAL:
            return _SPECIAL[self.text]
        if _INT.fullmatch(self.text):
            if len(self.text) > _DIGITS:
                return self.text
            return int(self.text, 0) if self.text.startswith(("0o", "0x")) else int(self.text)
        if _FLOAT.fullmatch(self.text):
            return float(self.text)
        return self.text


#: What a document holds: mappings, sequences and scalars, in Python's containers.
Node = dict[str, "Node"] | list["Node"] | Scalar


class Broken(InvalidMessage):
    """A document that is not YAML, or not the kind that is taken here."""

    def __init__(self, reason: str, at: tuple[int, int], *, at_end: bool = False) -> None:
        line, column = at
        super().__init__(reason, line=line, column=column)
        #: Whether the text just stops too early, so that more of it could mend it.
        self.at_end = at_end


class Mapping(NamedTuple):
    """The mapping that a document is."""

    items: dict[str, Node]
    #: Where it begins and ends, in characters, and how far its keys are indented.
    start: int
    end: int
    column: int
    flow: bool


def load(text: str) -> Mapping:
    """The mapping that a document is; raises Broken for anything else."""
    shielded, unshield = _shield(text)
    try:
        return _document(yaml.parse(shielded, Loader=yaml.CLoader), unshield)
    except yaml.YAMLError as error:
        raise _broken(error, shielded) from None
    except UnicodeEncodeError as error:
        raise Broken(f"{error.object[error.start]!a} is no text", place_of(text, error.start)) from None


def _document(events: Iterator[yaml.Event], unshield: dict[int, str]) -> Mapping:
    event = next(events)
    while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
        event = next(events)
    if isinstance(event, yaml.StreamEndEvent):
        raise Broken("nothing but comments", _place(event), at_end=True)
    if not isinstance(event, yaml.MappingStartEvent):
        raise Broken("this is not a mapping: a message has the keys role, content and timestamp", _place(event))
    _check(event)
    items, end = _mapping(events, unshield, DEPTH)
    for rest in events:
        if isinstance(rest, yaml.DocumentStartEvent):
            raise Broken("a second document", _place(rest))
    start = _start(event)
    return Mapping(items, start.index, end, start.column, bool(event.flow_style))


def _mapping(events: Iterator[yaml.Event], unshield: dict[int, str], depth: int) -> tuple[dict[str, Node], int]:
    items: dict[str, Node] = {}
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            return items, _start(event).index
        _check(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise Broken("a key has to be text", _place(event))
        key = event.value.translate(unshield)
        if key in items:
            raise Broken(
                f"the key {key!r:.40} stands twice; a missing line break before --- looks like this, too",
                _place(event),
            )
        items[key] = _node(next(events), events, unshield, depth)
    raise AssertionError("the parser ends every mapping")


def _node(event: yaml.Event, events: Iterator[yaml.Event], unshield: dict[int, str], depth: int) -> Node:
    _check(event)
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value.translate(unshield), event.implicit[0])
    if depth == 0:
        raise Broken(f"nested deeper than {DEPTH} levels", _place(event))
    if isinstance(event, yaml.MappingStartEvent):
        return _mapping(events, unshield, depth - 1)[0]
    sequence: list[Node] = []
    for item in events:
        if isinstance(item, yaml.SequenceEndEvent):
            break
        sequence.append(_node(item, events, unshield, depth - 1))
    return sequence


def _check(event: yaml.Event) -> None:
    at = _place(event)
    anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
    if isinstance(event, yaml.AliasEvent):
        raise Broken(f"the alias *{anchor}: write the value out", at)
    if anchor is not None:
        raise Broken(f"the anchor &{anchor}: leave it out", at)
    if tag is not None:
        raise Broken(f"the tag {tag}: leave it out", at)


def _start(event: yaml.Event) -> Any:
    assert event.start_mark is not None  # libyaml marks every event
    return event.start_mark


def place_of(text: str, at: int) -> tuple[int, int]:
    """The line and the column of a character of a text, counted from 1."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = _start(event)
    return mark.line + 1, mark.column + 1


def _broken(error: yaml.YAMLError, text: str) -> Broken:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        # The reader's errors have no mark: a character that YAML does not allow, and its place in bytes.
        assert isinstance(error, yaml.reader.ReaderError)
        at = len(text.encode()[: error.position].decode(errors="ignore"))
        return Broken(f"{error.reason} (U+{error.character:04X})", place_of(text, at))
    reason = " ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    # A key without its colon is noticed only behind its line, but no later line can bring the colon.
    at_end = not text[mark.index :].strip() and "expected ':'" not in reason
    return Broken(reason, (mark.line + 1, mark.column + 1), at_end=at_end)


def _shield(text: str) -> tuple[str, dict[int, str]]:
    """The text with stand-ins for what libyaml would misread, and the table that puts the characters back."""
    found = {ord(character) for character in _READ_DIFFERENTLY.findall(text)}
    if not found:
        return text, {}
    # Free is what is not there as an escape either.
    escapes = text.lower()
    free = (code for code in _STAND_INS if chr(code) not in text and f"{code:x}" not in escapes)
    shield = dict(zip(sorted(found), free, strict=False))
    return text.translate(shield), {stand_in: chr(code) for code, stand_in in shield.items()}
