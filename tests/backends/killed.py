"""A process that is killed, in the middle of what it does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, *changes: tuple[object, str]) -> Iterator[list[str]]:
    """A process that ends just before its change number `step`, of those (module, function); says which it did."""
    done: list[str] = []
    with monkeypatch.context() as patch:
        for owner, name in changes:
            real = getattr(owner, name)

            def fake(*arguments: object, real: Callable[..., None] = real, name: str = name) -> None:
                if len(done) >= step:
                    raise Killed
                done.append(name)
                real(*arguments)

            patch.setattr(owner, name, fake)
        try:
            yield done
        except Killed:
            return
        done.append("finished")
