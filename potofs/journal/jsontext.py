"""Values of a message as JSON and back, nothing lost on the way.

JSON has every value that a message can hold but three numbers: those are written as MongoDB's Extended JSON does,
{"$numberDouble": "NaN"}, "Infinity" and "-Infinity" likewise. A mapping that happens to look like that, whatever its
value, gets one more dollar sign, and loses it when it is read:

    nan                       <->  {"$numberDouble": "NaN"}
    {"$numberDouble": "NaN"}  <->  {"$$numberDouble": "NaN"}

Integers keep all their digits, floats are written so that they read back to the very same one. A key that stands twice
in a mapping is an error, as it is in YAML here.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from potofs.errors import InvalidMessage

Result = TypeVar("Result")

_TAG = "$numberDouble"
_TAGGED = re.compile(r"\$+numberDouble")
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> str:
    """A value on one line; raises InvalidMessage for a type that JSON does not have."""
    try:
        try:
            text = _written(value)
        except ValueError:
            return _written(_tagged(value))  # A number that JSON does not have.
        # Mostly, nothing looks like a tag, and that is known without a walk through the value.
        return _written(_tagged(value)) if 'numberDouble"' in text else text
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"a value cannot be written as JSON: {error}") from None


def loads(text: str) -> Any:
    """The value of a JSON text; raises json.JSONDecodeError with the place, InvalidMessage for what has none."""
    return _said(_DECODER.decode, text)


def read(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a character of a text, and where it ends; raises as `loads`."""
    return _said(_DECODER.raw_decode, text, at)


def _said(decode: Callable[..., Result], *args: Any) -> Result:
    try:
        return decode(*args)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise InvalidMessage("a value is nested too deep") from None
    except ValueError:
        raise InvalidMessage("a number has more digits than can be read: write it as text") from None


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _tagged(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return {_TAG: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
        case dict():
            if len(value) == 1 and isinstance(only := next(iter(value)), str) and _TAGGED.fullmatch(only):
                return {f"${only}": _tagged(value[only])}
            return {key: _tagged(item) for key, item in value.items()}
        case list() | tuple():
            return [_tagged(item) for item in value]
        case _:
            return value


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    if len(pairs) == 1:
        key, value = pairs[0]
        if key == _TAG and isinstance(value, str) and value in _NUMBERS:
            return _NUMBERS[value]
        return {key[1:] if key != _TAG and _TAGGED.fullmatch(key) else key: value}
    items: dict[str, Any] = {}
    for key, value in pairs:
        if key in items:
            raise InvalidMessage(f"the key {key!r:.40} stands twice")
        items[key] = value
    return items


def _constant(name: str) -> NoReturn:
    raise InvalidMessage(f'{name} is no JSON: write {{"{_TAG}": "{name}"}}')


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)
