"""How keys and values are written so that YAML 1.1, YAML 1.2 and JSON read the same: JSON's way, with YAML's `.inf`.

Strings are in double quotes with JSON's escapes; a character that YAML 1.1 and 1.2 read differently is escaped.
"""

import re
from json.encoder import encode_basestring as _json_string
from typing import Any, Final

from potofs.errors import InvalidMessage

#: What YAML 1.1 and 1.2 do not both take for an ordinary character, tab and line feed apart; for a character class.
AMBIGUOUS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff"
#: Words that one of them takes for a boolean, a null or a number.
WORD_OF_ANOTHER_TYPE: Final = re.compile("(?i:y|n|yes|no|true|false|on|off|null|nan|inf)")
#: A key that needs no quotes, unless it is such a word.
PLAIN_KEY: Final = "[A-Za-z_][A-Za-z0-9_]*"

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
    text = _text(key)
    if _PLAIN_KEY.fullmatch(text) and not WORD_OF_ANOTHER_TYPE.fullmatch(text):
        return text
    return quoted(text)


def flow(value: Any) -> str:
    """A value on one line; raises InvalidMessage for a type that JSON does not have."""
    match value:
        case str():
            return quoted(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case list() | tuple():
            return f"[{', '.join(map(flow, value))}]"
        case dict():
            return f"{{{', '.join(f'{quoted(_text(key))}: {flow(item)}' for key, item in value.items())}}}"
        case _:
            raise InvalidMessage(f"a value of type {type(value).__name__} cannot be kept: use JSON's types")


def block(items: dict[str, Any], indentation: str = "") -> str:
    """A mapping as lines, one a key; a mapping in it goes on below its key, what is deeper is written on one line."""
    lines = []
    for name, value in items.items():
        if isinstance(value, dict) and value and not indentation:
            lines.append(f"{key(name)}:\n{block(value, '  ')}")
        else:
            lines.append(f"{indentation}{key(name)}: {flow(value)}\n")
    return "".join(lines)


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidMessage(f"the key {key!r:.40} has to be text")
    return key


def _float(value: float) -> str:
    text = repr(value)
    if text.lstrip("-") in {"inf", "nan"}:
        return text.replace("inf", ".inf").replace("nan", ".nan")
    # YAML 1.1 takes 1e+16 for a string: there a number needs its point.
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}" if e else text
