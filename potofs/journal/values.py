"""How keys and values are written so that YAML 1.1, YAML 1.2 and JSON read the same: JSON's way, with YAML's `.inf`.

Strings are in double quotes with JSON's escapes; a character that YAML 1.1 and 1.2 read differently is escaped.
"""

import re
from json.encoder import encode_basestring as _json_string
from typing import Any, Final

from potofs.errors import InvalidMessage
from potofs.journal.yamldoc import DEPTH

#: What YAML 1.1 and 1.2 do not both take for an ordinary character, tab and line feed apart; for a character class.
AMBIGUOUS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff"
#: Words that one of them takes for a boolean, a null or a number.
WORD_OF_ANOTHER_TYPE: Final = re.compile("(?i:y|n|yes|no|true|false|on|off|null|nan|inf)")
#: A key that needs no quotes, unless it is such a word; a longer one is written in quotes.
PLAIN_KEY: Final = "[A-Za-z_][A-Za-z0-9_]{0,199}"

# The longest key as it is written (characters): YAML looks for its colon no further than 1024.
_KEY_MAX = 1024

_AMBIGUOUS = re.compile(f"[{AMBIGUOUS}]")
_PLAIN_KEY = re.compile(PLAIN_KEY)


def first_ambiguous(text: str) -> re.Match[str] | None:
    """The first character that is not read the same everywhere."""
    # Whatever is printable is unambiguous, and that is known ten times as fast.
    return None if text.replace("\n", "").isprintable() else _AMBIGUOUS.search(text)


def is_ambiguous(text: str) -> bool:
    """Whether there is a character that is not read the same everywhere."""
    return first_ambiguous(text) is not None


def quoted(text: str) -> str:
    """Text in double quotes; raises InvalidMessage if it has a lone surrogate."""
    literal = _json_string(text)
    return literal if literal.isprintable() else _AMBIGUOUS.sub(_escaped, literal)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xD800 <= code <= 0xDFFF:
        raise InvalidMessage(f"a lone surrogate U+{code:04X} is no text: decode it as UTF-16, or replace it")
    return f"\\u{code:04x}"


def key(key: object) -> str:
    """A key of a block mapping, plain where it can be; raises InvalidMessage if it is not text."""
    if isinstance(key, str) and _PLAIN_KEY.fullmatch(key) and not WORD_OF_ANOTHER_TYPE.fullmatch(key):
        return key
    return _quoted_key(key)


def flow(value: Any, depth: int = DEPTH) -> str:
    """A value on one line, nested `depth` levels at most.

    Raises InvalidMessage for a type that JSON does not have, and for what nobody could read back.
    """
    match value:
        case str():
            return quoted(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return _int(value)
        case float():
            return _float(value)
        case list() | tuple() | dict() if depth == 0:
            raise InvalidMessage(f"a value is nested deeper than {DEPTH} levels")
        case list() | tuple():
            return f"[{', '.join(flow(item, depth - 1) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{_quoted_key(key)}: {flow(item, depth - 1)}' for key, item in value.items())}}}"
        case _:
            raise InvalidMessage(f"a value of type {type(value).__name__} cannot be kept: use JSON's types")


def block(items: dict[str, Any], indentation: str = "") -> str:
    """A mapping as lines, one a key; a mapping in it goes on below its key, what is deeper is written on one line."""
    lines = []
    depth = DEPTH - 1 if indentation else DEPTH
    for name, value in items.items():
        if isinstance(value, dict) and value and not indentation:
            lines.append(f"{key(name)}:\n{block(value, '  ')}")
        else:
            lines.append(f"{indentation}{key(name)}: {flow(value, depth)}\n")
    return "".join(lines)


def _quoted_key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidMessage(f"the key {key!r:.40} has to be text")
    if key == "<<":
        # Bun merges it into the mapping around it even if it is quoted, YAML 1.1 if it is not.
        raise InvalidMessage("the key << means something else to some YAML parsers: call it something else")
    text = quoted(key)
    if len(text) > _KEY_MAX:
        raise InvalidMessage(f"the key {key[:20]!r}… is too long: YAML takes {_KEY_MAX} characters, quotes included")
    return text


def _int(value: int) -> str:
    try:
        # The number itself: a subclass (an enumeration's member) may call itself something else.
        return int.__repr__(value)
    except ValueError:
        raise InvalidMessage("a number has more digits than can be read back: write it as text") from None


def _float(value: float) -> str:
    # As above: numpy's float64, too, is a float and calls itself np.float64(…).
    text = float.__repr__(value)
    if text.lstrip("-") in {"inf", "nan"}:
        return text.replace("inf", ".inf").replace("nan", ".nan")
    # YAML 1.1 takes 1e+16 for a string: there a number needs its point.
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}" if e else text
