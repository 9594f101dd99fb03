"""How a message becomes bytes: the record format, and the quick way back.

A conversation is a stream of YAML documents. A record is one document and the line `---` that ends it; that line is the
commit mark. A message of ours looks like this, in this order of keys:

    role: user
    content: Hello, how are you today?
    timestamp: "2024-01-15T10:30:00.000Z"
    metadata:
      model: "gpt-4"
      tokens: 15
    ---

Content is written in one of three ways, each for people with grep and tail:

* plain, if it is one line that every YAML parser, 1.1 or 1.2, reads as that very string;
* as a literal block, if it has several lines (`|-` no newline at the end, `|` one, `|+` more; the digit 2 stands
  for the indentation where the first line begins with a blank or is empty, which no parser could guess):

    content: |-
      Two things:
      1. the first

* in double quotes with JSON's escapes otherwise: one line that looks like something else (`yes`, `12:30`, `- a`),
  an empty content (`""`), or any character that YAML 1.1 and 1.2 read differently (`"\\u0085"`).

Timestamps and strings of the metadata are always in double quotes. What is nested deeper than the metadata's own keys
is written as JSON, which is YAML too. Keys beside the four follow last.

`decode` reads exactly this narrow form by one regular expression, several times as fast as a YAML parser, and says
None to anything else; `journal.reading` then asks the real parser. On whatever `decode` reads, both agree.
"""

import json
import re
from typing import Any

from potofs.errors import InvalidMessage
from potofs.journal import values
from potofs.journal.message import ROLES, ChatMessage

#: The line that ends a record and commits it.
TERMINATOR = b"---\n"

# One line that begins with a letter. What would end a plain scalar inside it is looked for by `_stays_plain`.
_PLAIN = r"[^\W\d_][^\t\n]*"
_PLAIN_CONTENT = re.compile(_PLAIN)


def encode(message: ChatMessage) -> bytes:
    """The record of a message, terminator included; raises InvalidMessage for a value that YAML cannot hold.

    The message needs a timestamp: whoever appends has put one in.
    """
    if not message.timestamp:
        raise InvalidMessage("a record needs a timestamp")
    rest = message.extra if message.metadata is None else {"metadata": message.metadata, **message.extra}
    return (
        f"role: {message.role}\n"
        f"content: {_content(message.content)}\n"
        f"{timestamp_line(message.timestamp)}\n"
        f"{values.block(rest)}"
    ).encode() + TERMINATOR


def timestamp_line(timestamp: str) -> str:
    """A timestamp's key and value."""
    return f"timestamp: {values.quoted(timestamp)}"


def _content(content: str) -> str:
    if "\n" in content:
        return _literal(content)
    if (
        _PLAIN_CONTENT.fullmatch(content)
        and _stays_plain(content)
        and not values.is_ambiguous(content)
        and not values.WORD_OF_ANOTHER_TYPE.fullmatch(content)
    ):
        return content
    return values.quoted(content)


def _stays_plain(line: str) -> bool:
    return ": " not in line and " #" not in line and line[-1] != ":" and not line[-1].isspace()


def _literal(content: str) -> str:
    lines = content.split("\n")
    if values.is_ambiguous(content) or not content.strip() or (lines[-1] and lines[-1].isspace()):
        return values.quoted(content)
    indicator = "2" if content[0].isspace() else ""
    if not content.endswith("\n"):
        chomping = "-"
        lines.append("")
    else:
        chomping = "+" if content.endswith("\n\n") else ""
    body = "\n".join(f"  {line}" if line else "" for line in lines)
    return f"|{indicator}{chomping}\n{body}".removesuffix("\n")


# Each part begins with the backslash that the part before cannot have: there is only one way to match, and a missing
# quotation mark shows in linear time.
_QUOTED = r'"[^"\\\n\t]*(?:\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})[^"\\\n\t]*)*"'
_SIMPLE = rf"{_QUOTED}|-?(?:0|[1-9][0-9]{{0,17}})|-?[0-9]{{1,17}}\.[0-9]{{1,17}}|true|false|null"
_RECORD = re.compile(
    rf"""
    role:\ (?P<role>{"|".join(ROLES)})\n
    content:\ (?:
        (?P<plain>{_PLAIN})\n
      | (?P<quoted>{_QUOTED})\n
      | \|(?P<chomping>[-+]?)\n (?P<body>\ \ \S.*\n (?:\ \ .*\n|\n)*)
      | \|2(?P<chomping2>[-+]?)\n (?P<body2>(?:\ \ .*\n|\n)+)
    )
    timestamp:\ "(?P<timestamp>[0-9TZ:.+ -]+)"\n
    (?:metadata:\n (?P<metadata>(?:\ \ {values.PLAIN_KEY}:\ (?:{_SIMPLE})\n)+))?
    """,
    re.VERBOSE,
)
_PAIR = re.compile(rf"  ({values.PLAIN_KEY}): ({_SIMPLE})\n")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def decode(document: str) -> ChatMessage | None:
    """The message of a document in our own narrow form, its terminator taken off; None if it has another form.

    Raises InvalidMessage for a timestamp that names no time.
    """
    found = _RECORD.fullmatch(document)
    if found is None or values.is_ambiguous(document):
        return None
    role, plain, quoted, chomping, body, chomping2, body2, timestamp, pairs = found.groups()
    if plain is not None:
        if not _stays_plain(plain):
            return None
        content = plain
    elif quoted is not None:
        content = _unquoted(quoted)
    else:
        content = _dedented(body, chomping) if body is not None else _dedented(body2, chomping2)
    metadata = None
    if pairs is not None:
        metadata = {key: _simple(value) for key, value in _PAIR.findall(pairs)}
        if len(metadata) != pairs.count("\n"):
            return None  # A key stands twice; the real parser says where.
    return ChatMessage(role, content, timestamp, metadata)


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    unquoted: str = json.loads(text)
    return unquoted


def _dedented(body: str, chomping: str) -> str:
    text = body.removeprefix("  ").replace("\n  ", "\n")
    if chomping == "+":
        return text
    text = text.rstrip("\n")
    return text if chomping == "-" or not text else text + "\n"


def _simple(value: str) -> Any:
    if value[0] == '"':
        return _unquoted(value)
    if value in _WORDS:
        return _WORDS[value]
    return float(value) if "." in value else int(value)
