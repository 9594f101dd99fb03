"""That servers are silent is known to all, and that they are not any more, soon."""

import threading
import time
from collections.abc import Callable

import pytest

from potofs.backends.redis.silence import Silence
from potofs.errors import DeadlineExceeded
from tests.mounts import wait_until

WHY = DeadlineExceeded("it did not answer")


class Servers:
    """Silent until they are not."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.looks: list[float] = []

    def is_silent(self, seconds: float) -> bool:
        self.looks.append(seconds)
        return not self.answer.wait(seconds)


def watchers() -> int:
    return sum(thread.name == "potofs-silence" for thread in threading.enumerate())


def test_it_lasts_until_they_answer_and_looks_grow_to_a_deadline() -> None:
    servers = Servers()
    silence = Silence(servers.is_silent, 0.2)
    assert silence.why() is None
    silence.begin(WHY)
    silence.begin(DeadlineExceeded("another"))
    wait_until(lambda: len(servers.looks) > 6, "several looks")
    assert silence.why() is WHY
    assert (min(servers.looks), max(servers.looks)) == pytest.approx((0.01, 0.32))
    servers.answer.set()
    wait_until(lambda: silence.why() is None, "they were heard")
    wait_until(lambda: not watchers(), "nobody watches")


def test_whoever_is_answered_ends_it_for_all_at_once() -> None:
    silence = Silence(Servers().is_silent, 2)
    silence.begin(WHY)
    assert silence.why() is WHY
    silence.end()
    assert silence.why() is None
    wait_until(lambda: not watchers(), "nobody watches")


def test_many_who_ask_are_told_soon_and_all_together_wait_for_less_than_a_deadline() -> None:
    silence = Silence(Servers().is_silent, 1)
    silence.begin(WHY)
    begun = time.monotonic()
    for _ in range(10_000):
        assert silence.why() is WHY
    assert time.monotonic() - begun < 2
    silence.end()


def test_where_no_thread_can_be_had_everybody_waits_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    silence = Silence(Servers().is_silent, 1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    silence.begin(WHY)
    assert silence.why() is None


@pytest.mark.parametrize("end", [Silence.close, Silence.end])
def test_nobody_watches_for_longer_than_they_have_to(end: Callable[[Silence], None]) -> None:
    silence = Silence(Servers().is_silent, 0.1)
    silence.begin(WHY)
    end(silence)
    wait_until(lambda: not watchers(), "nobody watches")
