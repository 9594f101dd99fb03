"""A command whose answer was lost is repeated, and done once, whatever it was."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from potofs.backends.base import Backend
from potofs.backends.redis.backend import RedisBackend
from potofs.config import Where
from potofs.errors import DeadlineExceeded, NotFound
from potofs.journal import reading
from tests import redis_servers
from tests.backends.kit import joined, names_of, open_redis, record, records, stored
from tests.redis_servers import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(redis_servers.shared()) as proxy:
        yield proxy


@pytest.fixture
def directly(tmp_path: Path) -> Iterator[Backend]:
    """The same journal, reached without the proxy."""
    backend = open_redis(tmp_path)
    yield backend
    backend.close()


@pytest.fixture
def lossy(proxy: Proxy, tmp_path: Path, directly: Backend) -> Iterator[RedisBackend]:
    """The journal through the proxy."""
    backend = RedisBackend(Where("redis", proxy.place, {"keyPrefix": f"{tmp_path}:"}), reading.marks)
    yield backend
    backend.close()


@pytest.mark.parametrize("retry", [True, False])
def test_an_append_whose_answer_was_lost_is_stored_once(
    proxy: Proxy, lossy: Backend, directly: Backend, retry: bool
) -> None:
    lossy.append("mia", records(0, 1))
    proxy.lose(b"done", times=1)
    again = record("hello", retry=retry)
    assert lossy.append("mia", [again]) == (1, None)
    assert proxy.lost == 1
    assert stored(directly, "mia") == joined(records(0, 1)) + again.data
    assert directly.totals().messages == 2


def test_an_archival_whose_answer_was_lost_is_done_once_and_its_name_is_known(
    proxy: Proxy, lossy: Backend, directly: Backend
) -> None:
    lossy.append("mia", records(0, 2))
    proxy.lose(b"done", times=2)
    name = lossy.archive("mia")
    assert proxy.lost == 2
    assert names_of(directly, "mia") == [name]
    assert stored(directly, "mia", name) == joined(records(0, 2))


def test_an_append_that_archives_and_whose_answer_was_lost_archives_once(
    proxy: Proxy, tmp_path: Path, directly: Backend
) -> None:
    options = {"keyPrefix": f"{tmp_path}:", "archiveThreshold": "2"}
    backend = RedisBackend(Where("redis", proxy.place, options), reading.marks)
    proxy.lose(b"done", times=1)
    done = backend.append("mia", [record("a", retry=False), record("b", retry=False)])
    backend.close()
    assert proxy.lost == 1
    assert names_of(directly, "mia") == [done.archived_as]
    with pytest.raises(NotFound):
        directly.stat("mia")
    assert directly.totals()[:4] == (1, 0, 1, 2)


CHANGES: dict[str, Callable[[Backend], object]] = {
    "restore": lambda backend: backend.restore("mia", "one"),
    "rename": lambda backend: backend.rename_archive("mia", "one", "two"),
    "put_archive": lambda backend: backend.put_archive("mia", "two", b"bytes", 1),
    "put_current": lambda backend: backend.put_current("noah", b"bytes", 1),
    "set_times": lambda backend: backend.set_times("mia", "one", 1),
    "create_user": lambda backend: backend.create_user("zoe", b"profile"),
    "set_aside": lambda backend: backend.set_aside("mia", b"refused"),
    "rewrite": lambda backend: (
        backend.rewrite("mia", "one", backend.stat("mia", "one"), b"bytes") or pytest.fail("it was done")
    ),
    "append_log": lambda backend: backend.append_log(b"a line\n"),
    "extend": lambda backend: backend.extend("eve", backend.stat("eve"), b"more", 1) or pytest.fail("it was done"),
    "put_profile": lambda backend: backend.put_profile("mia", b"profile", 1),
    "set_changed": lambda backend: backend.set_changed("mia", 1),
    "set_changed of all users": lambda backend: backend.set_changed(None, 1),
    "set_aside of a copy": lambda backend: backend.set_aside("mia", b"refused", "copied", mtime_ns=1),
    "remove_set_aside": lambda backend: backend.remove_set_aside("mia", "aside"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_other_change_is_done_once_and_answered_as_if_nothing_was_lost(
    proxy: Proxy, lossy: Backend, directly: Backend, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directly.put_archive("mia", "one", joined(records(0, 1)), 5)
    directly.put_current("eve", b"bytes", 5)
    monkeypatch.setattr("potofs.times.compact", lambda _: "aside")
    directly.set_aside("mia", b"refused")
    proxy.lose(b"done", times=1)
    CHANGES[change](lossy)
    assert proxy.lost == 1
    asides = {"set_aside": 2, "set_aside of a copy": 2, "remove_set_aside": 0}.get(change, 1)
    assert len(directly.set_asides("mia")) == asides
    assert directly.log_size() == (7 if change == "append_log" else 0)


@pytest.mark.parametrize("how", ["lost", "late"])
def test_a_copy_that_goes_on_and_whose_answer_was_lost_goes_on_once(
    proxy: Proxy, lossy: Backend, directly: Backend, how: str
) -> None:
    data = joined(records(0, 4))
    directly.put_current("mia", data[:100], 5)
    seen = lossy.stat("mia")
    directly.append("noah", records(0, 1))
    lossy.set_times("mia", None, 6)
    if how == "lost":
        proxy.lose(b"done", times=2)
    else:
        proxy.delay(b"EVALSHA", times=1)
    assert lossy.extend("mia", seen, data[100:], 7) is True
    if how == "late":
        (answer,) = proxy.deliver()
        assert b"done" in answer
    else:
        assert proxy.lost == 2
    assert (stored(directly, "mia"), directly.stat("mia").mtime_ns) == (data, 7)
    assert directly.totals().messages == 5
    assert directly.append("mia", records(0, 4)).stored == 0


def test_a_command_that_arrives_after_its_repetition_does_nothing(
    proxy: Proxy, lossy: Backend, directly: Backend
) -> None:
    lossy.append("mia", records(0, 1))
    proxy.delay(b"EVALSHA", times=1)
    again = record("hello", retry=False)
    assert lossy.append("mia", [again]).stored == 1
    (answer,) = proxy.deliver()
    assert b"done" in answer
    assert stored(directly, "mia") == joined(records(0, 1)) + again.data


def test_a_repetition_that_comes_too_late_to_be_known_does_nothing_and_says_so(
    proxy: Proxy, lossy: Backend, directly: Backend
) -> None:
    lossy.append("mia", records(0, 1))
    again = record("hello", retry=False)

    def meanwhile() -> None:
        for number in range(600):
            directly.set_times("mia", None, number)

    proxy.lose(b"done", times=1, then=meanwhile)
    with pytest.raises(DeadlineExceeded, match="cannot be told"):
        lossy.append("mia", [again])
    assert stored(directly, "mia") == joined(records(0, 1)) + again.data
    # The next one is told apart again.
    assert lossy.append("mia", [again]).stored == 1


def test_a_first_try_after_many_changes_of_others_is_done(lossy: Backend, directly: Backend) -> None:
    lossy.append("mia", records(0, 1))
    for number in range(600):
        directly.set_times("mia", None, number)
    assert lossy.append("mia", records(1, 2)).stored == 1
    assert stored(directly, "mia") == joined(records(0, 2))
