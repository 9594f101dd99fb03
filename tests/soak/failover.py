"""A master that dies under appends, again and again, and the replica that takes its place: what is lost is counted.

In every second round the replica is cut off from the master before that dies, while there are more appends: what
nobody else has is lost then, unless the writers wait for the replica (`waitReplicas=1`). With that nothing may be lost.
With or without it nothing may be doubled, torn or out of its writer's order.

Three writers, all on the master that dies: one alone with its user, whose conversations are archived, and two that
share a user. Each tries again what was refused until it is stored. The old master comes back as the replica of the new
one.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

from potofs import open_journal
from potofs.backends.redis.keys import Keys
from tests import redis_servers
from tests.redis_servers import Cluster, Server, Watched
from tests.soak import children, numbered, places, steady
from tests.soak.children import Notes
from tests.soak.report import Report

KINDS = ("sentinel", "cluster")
THRESHOLD = 9
_TIMEOUT_MS = 8000
# Appends of each writer between two deaths, and those of all while the replica is cut off (messages).
_BETWEEN = 25
_BEHIND = 20
# How long a master that is waited for lives on at most, once its replica is cut off (seconds).
_LIFE = 0.3
_DEATH, _CUT_OFF = "the master died", "its replica had been cut off before"


class Pair(NamedTuple):
    """A master and its replica, and what watches them."""

    servers: Watched | Cluster
    scheme: str
    master: Server
    replica: Server
    #: Whether a user's bytes are on them.
    has: Callable[[str], bool]


def _pair(kind: str, folder: Path) -> Pair:
    if kind == "sentinel":
        watched = Watched(folder)
        with watched.sentinel.client() as client:
            # It waits twice as long between two failovers.
            client.execute_command("SENTINEL", "SET", "mymaster", "failover-timeout", "1000")
        master, replica, _ = watched.servers
        return Pair(watched, "redis+sentinel", master, replica, lambda _: True)
    cluster = Cluster(folder, replicas=1)
    masters = len(cluster.nodes) // 2

    def has(user: str) -> bool:
        with cluster.nodes[0].client() as client:
            slot: int = client.execute_command("CLUSTER", "KEYSLOT", Keys("").user(user))
            return slot < 16384 // masters

    return Pair(cluster, "redis+cluster", cluster.nodes[0], cluster.nodes[masters], has)


class Writer(NamedTuple):
    """One writer, and what it says of itself."""

    name: str
    user: str
    process: SpawnProcess
    notes: Notes


def run(kind: str, folder: Path, *, rounds: int, wait_replicas: int) -> Report:
    """Kills so many masters under appends, and judges what there is in the end."""
    report = Report(f"failover, {kind}, waitReplicas={wait_replicas}: {rounds} rounds")
    pair = _pair(kind, folder / "servers")
    try:
        _run(report, pair, folder, rounds, wait_replicas)
    finally:
        pair.servers.kill()
    return report


def _run(report: Report, pair: Pair, folder: Path, rounds: int, wait_replicas: int) -> None:
    options = {"timeoutMs": _TIMEOUT_MS, "waitReplicas": wait_replicas}
    place = pair.servers.place
    archiving = places.redis_url(pair.scheme, place, folder, archiveThreshold=THRESHOLD, **options)
    keeping = places.redis_url(pair.scheme, place, folder, archiveThreshold=0, maxConversationLength=0, **options)
    alone, shared = [user for user in (f"user {number}" for number in range(100)) if pair.has(user)][:2]
    with open_journal(archiving):
        pass
    writers = []
    for name, user, url in (("w0", alone, archiving), ("w1", shared, keeping), ("w2", shared, keeping)):
        notes = children.notes()
        writers.append(Writer(name, user, steady.process(url, user, name, 0, notes, alone=user == alone), notes))
    # For each round what kind it was, and which messages each writer was told to be stored from one round to the next.
    happened: list[tuple[str, dict[str, range]]] = []
    with children.running(*(writer.process for writer in writers)):
        chance, master, replica = random.Random(rounds), pair.master, pair.replica
        _wait_for_appends(writers)
        for number in range(rounds):
            before = {writer.name: writer.notes.done for writer in writers}
            kind = _CUT_OFF if number % 2 else _DEATH
            if kind == _CUT_OFF:
                redis_servers.cut_off(master, replica)
                _let_write(writers, chance, waiting=wait_replicas > 0)
            redis_servers.replace(master, replica)
            # A sentinel would tell it after many seconds.
            redis_servers.come_back(master, replica, tell=isinstance(pair.servers, Watched))
            _wait_for_appends(writers)
            happened.append((kind, {each.name: range(before[each.name], each.notes.done) for each in writers}))
            master, replica = replica, master
        for writer in writers:
            steady.stopped(writer.process, writer.notes)
    _judge(report, archiving, writers, happened, may_lose=not wait_replicas)


def _wait_for_appends(writers: list[Writer]) -> None:
    """Returns once each writer has appended some more."""
    for writer in writers:
        children.wait_for_more(writer.notes, "done", _BETWEEN, writer.process)


def _let_write(writers: list[Writer], chance: random.Random, *, waiting: bool) -> None:
    """Lets the writers append what the replica will not have; if they wait for it, what they begin stays under way."""
    if waiting:
        time.sleep(chance.random() * _LIFE)
        return
    for writer in writers:
        children.wait_for_more(writer.notes, "done", _BEHIND, writer.process)


def _judge(
    report: Report, url: str, writers: list[Writer], happened: list[tuple[str, dict[str, range]]], *, may_lose: bool
) -> None:
    lost = Counter[str]({_DEATH: 0, _CUT_OFF: 0})
    messages = archives = 0
    with open_journal(url) as journal:
        found = {user: numbered.Found(journal, user) for user in sorted({writer.user for writer in writers})}
        stats = journal.get_stats()
    for user, all_there in found.items():
        messages, archives = messages + all_there.messages, archives + len(all_there.archives)
        known = {writer.name: writer.notes.done for writer in writers if writer.user == user}
        all_there.judge_the_rest(report, known)
        for archive, data in all_there.damage:
            report.violated("a half record stayed", f"{archive} {data!r:.100}")
    for writer in writers:
        found[writer.user].judge(report, writer.name, writer.notes.done, may_lose=may_lose)
        for number in found[writer.user].lost(writer.name, writer.notes.done):
            lost.update(kind for kind, stored in happened if number in stored[writer.name])
    report.must(stats.total_messages == messages, "the statistics count other messages", stats)
    report.must(stats.total_archived_conversations == archives, "the statistics count other archives", stats)
    rounds = Counter(kind for kind, _ in happened)
    report.must(not (may_lose and rounds[_CUT_OFF] and not lost[_CUT_OFF]), "the replica was never behind")
    report.figure("records acknowledged", sum(writer.notes.done for writer in writers))
    for kind in (_DEATH, _CUT_OFF):
        report.figure(f"lost when {kind}", f"{lost[kind]} in {rounds[kind]} rounds")
    report.figure("appends refused, and given again", sum(writer.notes.refused for writer in writers))
    report.figure("messages in the end", messages)
