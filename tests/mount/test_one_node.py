"""One node of a Redis Cluster does not answer: its users are told within one deadline, and nobody else waits."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from potofs import open_journal
from tests import redis_servers
from tests.mounts import Mount, all_at_once, answer_of, is_mounted, potofs, wait_until

#: What a call may take (seconds), and what the machine may add to that.
DEADLINE = 1.0
SOME = 3.0
RECORD = 'role: user\ncontent: number {0}\ntimestamp: "2024-01-15T10:30:00.{0:03d}Z"\n---\n'
USERS = [f"user-{number}" for number in range(8)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[redis_servers.Cluster]:
    """One whose other nodes go on answering."""
    cluster = redis_servers.Cluster(tmp_path / "redis", covered=False)
    yield cluster
    cluster.kill()


@pytest.fixture
def mount(cluster: redis_servers.Cluster, mount_at: Callable[..., Mount]) -> Mount:
    mount = mount_at(f"redis+cluster://{cluster.place}?timeoutMs={DEADLINE * 1000:.0f}")
    mount.expect_warning(".")
    for user in USERS:
        (mount.users / user).mkdir()
        mount.current(user).write_text(RECORD.format(0))
    return mount


@pytest.mark.parametrize("outage", [signal.SIGSTOP, signal.SIGKILL])
def test_many_who_append_to_its_conversations_wait_for_one_deadline_together_and_the_others_not_at_all(
    mount: Mount, cluster: redis_servers.Cluster, outage: signal.Signals
) -> None:
    gone = cluster.nodes[0]
    theirs = sorted(redis_servers.users_on(gone))
    ours = sorted({*USERS} - {*theirs})
    assert theirs
    assert ours
    descriptors = {
        user: [os.open(mount.current(user), os.O_WRONLY | os.O_APPEND) for _ in range(300 if user == theirs[0] else 20)]
        for user in USERS
    }

    def appends(users: list[str]) -> list[Callable[[], object]]:
        return [
            partial(os.write, descriptor, RECORD.format(1 + number).encode())
            for user in users
            for number, descriptor in enumerate(descriptors[user])
        ]

    try:
        if outage is signal.SIGKILL:
            gone.kill()
        else:
            gone.signal(outage)
        waits = all_at_once([*appends(theirs), *(mount.current(user).stat for user in theirs)])
        assert {answer for answer, _ in waits} <= {"ETIMEDOUT", "EHOSTDOWN"}
        # One after another they would take a deadline each.
        assert max(waited for _, waited in waits) < DEADLINE + SOME
        waits = all_at_once([*appends(ours), *(partial(os.listdir, mount.archived(user)) for user in ours)])
        assert {answer for answer, _ in waits} == {"done"}
        assert max(waited for _, waited in waits) < DEADLINE + SOME
        # What wants all of them is told at once, as long as it lasts.
        begun = time.monotonic()
        for _ in range(20):
            assert answer_of(partial(os.listdir, mount.users))[0] in ("ETIMEDOUT", "EHOSTDOWN")
        assert time.monotonic() - begun < DEADLINE + SOME
    finally:
        if outage is signal.SIGKILL:
            gone.start()
        else:
            gone.signal(signal.SIGCONT)
        wait_until(lambda: {answer_of(mount.current(user).stat)[0] for user in USERS} == {"done"}, "all answer again")
        for of_one in descriptors.values():
            for descriptor in of_one:
                os.close(descriptor)
    for user in USERS:
        with mount.current(user).open("a") as file:
            file.write(RECORD.format(999))
        assert mount.current(user).read_text().endswith(RECORD.format(999))
    for user in ours:
        # Each was told that it is stored.
        assert mount.current(user).read_text().count("content") == 22


def test_nobody_on_the_other_nodes_notices_that_one_hangs(mount: Mount, cluster: redis_servers.Cluster) -> None:
    """Although all have to pass by users/, of whose time each node knows a part."""
    hangs = cluster.nodes[0]
    ours = sorted({*USERS} - redis_servers.users_on(hangs))
    waits = []
    hangs.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        while time.monotonic() < begun + 3 * DEADLINE:
            waits += all_at_once([mount.current(user).stat for user in ours])
    finally:
        hangs.signal(signal.SIGCONT)
    assert {answer for answer, _ in waits} == {"done"}
    assert max(waited for _, waited in waits) < DEADLINE / 2


def test_users_of_the_other_nodes_are_served_by_a_mount_that_begins_while_one_is_gone(
    cluster: redis_servers.Cluster, tmp_path: Path
) -> None:
    url = f"redis+cluster://{cluster.place}?timeoutMs={DEADLINE * 1000:.0f}"
    with open_journal(url) as journal:
        for user in USERS:
            journal.append_pieces(user, [RECORD.format(0).encode()])
    # Where that is, nobody can tell whether there is a journal.
    others = [node for node in cluster.nodes if not redis_servers.has_journal(node)]
    (gone, *_) = filter(redis_servers.users_on, others)
    ours = sorted({*USERS} - redis_servers.users_on(gone))
    gone.kill()
    path = tmp_path / "mnt"
    done = potofs("mount", path, f"--backend={url}", f"--log={tmp_path / 'log'}")
    try:
        assert done.returncode == 0, done.stderr
        assert "whether it could lose messages is not known: " in done.stderr
        for user in ours:
            current = path / "users" / user / "dialogs/current.yaml"
            with current.open("a") as file:
                file.write(RECORD.format(1))
            assert current.read_text() == RECORD.format(0) + RECORD.format(1)
    finally:
        potofs("umount", path)
    assert not is_mounted(path)
