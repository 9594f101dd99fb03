"""What is known of the messages of conversations in Redis: noted in pieces, and believed once all is there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from potofs.backends.redis import scripts
from potofs.backends.redis.backend import RedisBackend
from potofs.backends.redis.connection import Argument, Link
from potofs.backends.redis.keys import Keys
from potofs.backends.redis.scripts import Script
from potofs.journal import fsck
from tests.backends.kit import joined, open_redis, record, records, stored

MANY = 40
AT_ONCE = 7


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RedisBackend:
    """One that lets a server note a few fingerprints at once."""
    monkeypatch.setattr("potofs.backends.redis.changes._LEARNED_AT_ONCE", AT_ONCE)
    monkeypatch.setattr("potofs.backends.redis.copying._KNOWN_AT_ONCE", AT_ONCE)
    return open_redis(tmp_path)


#: What is called before each script.
Spy = Callable[[Script, Sequence[Argument]], object]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Callable[[Spy], None]:
    real = Link.script

    def spy(called: Spy) -> None:
        def script(
            self: Link, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument]
        ) -> tuple[list[bytes], bool]:
            called(script, arguments)
            return real(self, script, keys, arguments)

        monkeypatch.setattr(Link, "script", script)

    return spy


def known_of(client: Any, keys: Keys, user: str) -> set[bytes]:
    return set(client.hkeys(keys.known(int(client.hget(keys.user(user), "current")))))


#: What a copy is of many messages, and what is done with it.
COPIES: dict[str, list[Callable[[RedisBackend], object]]] = {
    "a conversation": [lambda b: b.put_current("mia", joined(records(0, MANY)), 5)],
    "an archive": [lambda b: b.put_archive("mia", "old", joined(records(0, MANY)), 5)],
    "what is added to a copy": [
        lambda b: b.put_current("mia", joined(records(0, 3)), 5),
        lambda b: b.extend("mia", b.stat("mia"), joined(records(3, MANY)), 6),
    ],
    "what a torn copy goes on with": [
        lambda b: b.put_current("mia", joined(records(0, MANY))[:-30], 5),
        lambda b: b.extend("mia", b.stat("mia"), joined(records(0, MANY))[-30:], 6),
    ],
    "a conversation that is mended": [
        lambda b: b.put_current("mia", b"junk", 5),
        lambda b: b.rewrite("mia", None, b.stat("mia"), joined(records(0, MANY))),
    ],
    "a copy without an end": [
        lambda b: b.put_current("mia", joined(records(0, MANY))[: -len(b"---\n")], 5),
        lambda b: b.append("mia", [record("more", retry=False)]),
    ],
}


@pytest.mark.parametrize("copy", COPIES)
def test_however_many_messages_a_copy_has_no_script_notes_more_than_some(
    backend: RedisBackend, spied: Callable[[Spy], None], copy: str
) -> None:
    """Redis serves nobody else while a script runs."""
    most = 0

    def count(_: Script, arguments: Sequence[Argument]) -> None:
        nonlocal most
        most = max(most, len(arguments))

    spied(count)
    for step in COPIES[copy]:
        step(backend)
    assert backend.append("mia", records(MANY - 1, MANY)).stored == 0
    assert most < 20 + AT_ONCE
    for turn in range(0, MANY, AT_ONCE):
        assert backend.append("mia", records(turn, min(MANY, turn + AT_ONCE))).stored == 0
    assert list(fsck.check(backend)) == []


def test_what_is_added_to_a_copy_is_all_that_is_told_of_it(
    backend: RedisBackend, spied: Callable[[Spy], None], client: redis.Redis, keys: Keys
) -> None:
    backend.put_current("mia", joined(records(0, 5)), 5)
    seen = backend.stat("mia")
    told: list[tuple[Script, int]] = []
    spied(lambda script, arguments: told.append((script, len(arguments))))
    assert backend.extend("mia", seen, joined(records(5, 7)), 6)
    assert [script for script, _ in told] == [scripts.change("extend")]
    assert told[0][1] <= 15
    assert len(known_of(client, keys, "mia")) == 8
    assert backend.append("mia", records(0, 7)).stored == 0
    assert backend.totals()[3:5] == (7, len(joined(records(0, 7))))
    assert list(fsck.check(backend)) == []


@pytest.mark.parametrize("at", range(MANY // AT_ONCE + 1))
@pytest.mark.parametrize("how", ["removed", "mixed", "grown", "learned by another"])
def test_what_was_noted_in_part_is_not_believed_and_a_second_try_is_still_known(
    backend: RedisBackend,
    spied: Callable[[Spy], None],
    client: redis.Redis,
    keys: Keys,
    tmp_path: Path,
    how: str,
    at: int,
) -> None:
    other = open_redis(tmp_path)
    backend.put_current("mia", joined(records(0, MANY)), 5)
    known = keys.known(int(client.hget(keys.user("mia"), "current") or 0))
    client.delete(known)
    turns = 0

    def meanwhile(script: Script, _: Sequence[Argument]) -> None:
        nonlocal turns
        if script != scripts.learn():
            return
        turns += 1
        if turns != at + 1:
            return
        match how:
            case "removed":
                client.delete(known)
            case "mixed":
                client.hset(known, "of nothing", "")
            case "grown":
                assert other.extend("mia", other.stat("mia"), joined(records(MANY, MANY + 1)), 6)
            case _:
                assert other.append("mia", records(0, 1)).stored == 0

    spied(meanwhile)
    assert backend.append("mia", records(0, MANY)).stored == 0
    assert turns > at
    there = MANY + (how == "grown")
    assert len(known_of(client, keys, "mia")) == there + 1
    assert backend.append("mia", records(0, there)).stored == 0
    assert stored(backend, "mia") == joined(records(0, there))
    assert list(fsck.check(backend)) == []


def test_fingerprints_that_are_just_being_noted_are_no_fault(
    backend: RedisBackend, client: redis.Redis, keys: Keys
) -> None:
    backend.put_current("mia", joined(records(0, 5)), 5)
    known = keys.known(int(client.hget(keys.user("mia"), "current") or 0))
    one = next(iter(known_of(client, keys, "mia") - {b""}))
    client.hdel(known, b"", one)
    assert list(fsck.check(backend)) == []
    assert backend.append("mia", records(0, 5)).stored == 0
    assert list(fsck.check(backend)) == []
