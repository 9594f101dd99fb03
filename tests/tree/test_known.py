"""When a user was last added is told as it is known, whatever becomes of whoever has to say it."""

import threading
import time
from collections.abc import Callable

import pytest

from potofs.errors import Damaged, Unreachable
from potofs.tree import known
from potofs.tree.known import UsersChanged
from tests.mounts import wait_until

#: So long a deadline that nobody has waited for it, if a test ends.
LONG = 600.0


def of(ask: Callable[[], int], *, blocks: bool = True) -> UsersChanged:
    return UsersChanged(ask, blocks=blocks, patience=LONG)


@pytest.mark.parametrize("blocks", [True, False])
def test_it_is_what_is_answered(blocks: bool) -> None:
    answers = iter([1, 2, 3])
    changed = of(lambda: next(answers), blocks=blocks)
    assert changed.known == pytest.approx(time.time_ns(), abs=10**10), "nobody has asked"
    assert [changed(), changed(), changed()] == [1, 2, 3]
    assert changed.known == 3


def test_whoever_asks_while_an_answer_is_late_waits_no_more_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_GLANCE", 0.05 / LONG)
    goes_on, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        if len(asked) == 2:
            goes_on.wait()
        return len(asked)

    changed = of(ask)
    assert changed() == 1
    assert [changed() for _ in range(1000)] == [1] * 1000
    assert len(asked) == 2
    goes_on.set()
    wait_until(lambda: changed.known == 2, "the answer came")
    assert changed() == 3


@pytest.mark.parametrize("blocks", [True, False])
def test_an_outage_is_nobodys_business_and_not_asked_for_at_once(blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        if len(asked) == 1:
            raise Unreachable("it is down")
        return 7

    changed = of(ask, blocks=blocks)
    before = changed.known
    assert [changed() for _ in range(10)] == [before] * 10
    assert len(asked) == 1
    monkeypatch.setattr(known, "_OUTAGE", 0.0)
    assert changed() == 7


def test_what_is_no_outage_is_told() -> None:
    def ask() -> int:
        raise Damaged("no number")

    with pytest.raises(Damaged):
        of(ask)()
