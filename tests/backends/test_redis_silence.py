"""That a server is silent is known to all who want it, and that it is not any more, soon."""

import threading
import time
from collections.abc import Callable

import pytest

from potofs.backends.redis.silence import Silences
from potofs.errors import DeadlineExceeded
from tests.mounts import wait_until

WHY = DeadlineExceeded("it did not answer")


class Servers:
    """Silent until they are not."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.looks: list[float] = []

    def is_silent(self, server: str, key: str | None, seconds: float) -> bool:
        assert (server, key) == ("one", "key")
        self.looks.append(seconds)
        return not self.answer.wait(seconds)


def watchers() -> int:
    return sum(thread.name == "potofs-silence" for thread in threading.enumerate())


def test_it_lasts_until_they_answer_and_looks_grow_to_a_deadline() -> None:
    servers = Servers()
    silences = Silences(servers.is_silent, 0.2)
    assert silences.why(["one"]) is None
    silences.begin({"one": "key"}, WHY)
    silences.begin({"one": "key"}, DeadlineExceeded("another"))
    wait_until(lambda: len(servers.looks) > 6, "several looks")
    assert silences.why(["one"]) is WHY
    assert (min(servers.looks), max(servers.looks)) == pytest.approx((0.01, 0.32))
    servers.answer.set()
    wait_until(lambda: silences.why(["one"]) is None, "they were heard")
    wait_until(lambda: not watchers(), "nobody watches")


def test_each_server_has_its_own_and_is_asked_for_a_key_that_it_has() -> None:
    asked, answers = set(), threading.Event()

    def is_silent(server: str, key: str | None, _: float) -> bool:
        assert key == f"key of {server}"
        asked.add(server)
        return server != "two" or not answers.is_set()

    silences = Silences(is_silent, 0.2)
    silences.begin({"one": "key of one", "two": "key of two"}, WHY)
    wait_until(lambda: len(asked) == 2, "both are watched")
    assert [silences.why([server]) is None for server in ("one", "two", "three")] == [False, False, True]
    assert silences.why(["three", "one"]) is WHY
    answers.set()
    wait_until(lambda: silences.why(["two"]) is None, "that one was heard")
    # The first of them that is silent still.
    assert silences.why(["two", "one"]) is WHY
    assert len(silences) == 1
    silences.end(["one"])
    wait_until(lambda: not watchers(), "nobody watches")


def test_whoever_is_answered_ends_it_for_all_at_once() -> None:
    silences = Silences(Servers().is_silent, 2)
    silences.begin({"one": "key"}, WHY)
    assert silences.why(["one"]) is WHY
    silences.end(["one"])
    assert silences.why(["one"]) is None
    wait_until(lambda: not watchers(), "nobody watches")


def test_many_who_ask_are_told_soon_and_all_together_wait_for_less_than_a_deadline() -> None:
    silences = Silences(Servers().is_silent, 1)
    silences.begin({"one": "key"}, WHY)
    begun = time.monotonic()
    for _ in range(10_000):
        assert silences.why(["one"]) is WHY
    assert time.monotonic() - begun < 2
    silences.end(["one"])


def test_where_no_thread_can_be_had_everybody_waits_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    silences = Silences(Servers().is_silent, 1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    silences.begin({"one": "key"}, WHY)
    assert silences.why(["one"]) is None


@pytest.mark.parametrize("end", [Silences.close, lambda silences: silences.end(["one"])])
def test_nobody_watches_for_longer_than_they_have_to(end: Callable[[Silences], None]) -> None:
    silences = Silences(Servers().is_silent, 0.1)
    silences.begin({"one": "key"}, WHY)
    end(silences)
    wait_until(lambda: not watchers(), "nobody watches")
