"""What a program is told that gives an operation something of another type than it takes.

Looked at where it comes in: further in, a wrong type would fail on something that its caller never heard of, or be
taken for something else (a text is a sequence, too). What has the right type and a wrong value is a PotofsError.
"""

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def wrong_type(name: str, value: object, wanted: str, way_out: str = "") -> TypeError:
    """The error that an argument is of another type than is wanted."""
    return TypeError(f"{name} has to be {wanted}, not {type(value).__name__}{way_out and f': {way_out}'}")


def text(name: str, value: object) -> None:
    """Raises TypeError unless an argument is text."""
    if not isinstance(value, str):
        raise wrong_type(name, value, "text")


def optional_text(name: str, value: object) -> None:
    """Raises TypeError unless an argument is text or None."""
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, value, "text or None")


def number(name: str, value: object) -> None:
    """Raises TypeError unless an argument is a whole number."""
    if not isinstance(value, int):
        raise wrong_type(name, value, "a whole number")


def several(name: str, values: Iterable[Item], of: str) -> Iterator[Item]:
    """The items of an argument; raises TypeError for what is none by itself, and for one that came alone."""
    if isinstance(values, AsyncIterable):
        raise wrong_type(
            name, values, f"an iterable of {of}", "potofs.aio takes one as pieces; else collect it in a list"
        )
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise wrong_type(name, values, f"an iterable of {of}", "give a single one in a list")
    return iter(values)
