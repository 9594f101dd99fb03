"""A Redis server that is stopped, killed and started again under appends: everything acknowledged is there, once.

With `appendfsync always` it forces every change to its file before it answers; with `everysec` it may lose what it
answered last, and what it loses is counted. The writer tries again what was not answered until it is; what was done
although no answer came is not done twice.
"""

import random
import signal
import time
from collections import Counter
from pathlib import Path

from potofs import open_journal
from tests.redis_servers import Server
from tests.soak import children, numbered, places, steady
from tests.soak.report import Report, counted

THRESHOLD = 9
_USERS = ("mia", "noah")
_TIMEOUT_MS = 200
_BETWEEN = 25


def run(folder: Path, *, seconds: float, appendfsync: str = "always") -> Report:
    """Lets two writers append for some seconds to a server that goes and comes; each trouble once at least."""
    report = Report(f"outages of Redis, appendfsync {appendfsync}: {seconds:g} s")
    server = Server(folder / "redis", None, appendfsync=appendfsync)
    try:
        _run(report, server, folder, seconds, may_lose=appendfsync != "always")
    finally:
        server.kill()
    return report


def _run(report: Report, server: Server, folder: Path, seconds: float, *, may_lose: bool) -> None:
    url = places.url("redis", folder, server, archiveThreshold=THRESHOLD, timeoutMs=_TIMEOUT_MS)
    chance, troubles = random.Random(1), Counter[str]()
    notes = {user: children.notes() for user in _USERS}
    writers = [steady.process(url, user, "w", 0, notes[user]) for user in _USERS]
    deadline = time.monotonic() + seconds

    def all_appended() -> None:
        for user, writer in zip(_USERS, writers, strict=True):
            children.wait_for_more(notes[user], "done", _BETWEEN, writer)

    def all_refused() -> None:
        for user, writer in zip(_USERS, writers, strict=True):
            children.wait_for_more(notes[user], "refused", 1, writer)

    def hang() -> None:
        server.signal(signal.SIGSTOP)
        all_refused()
        server.signal(signal.SIGCONT)

    def pause() -> None:
        server.signal(signal.SIGSTOP)
        time.sleep(chance.random() * _TIMEOUT_MS / 1000)
        server.signal(signal.SIGCONT)

    def die() -> None:
        server.kill()
        all_refused()
        server.start()

    def die_stopped() -> None:
        server.signal(signal.SIGSTOP)
        time.sleep(chance.random() * _TIMEOUT_MS / 1000)
        server.kill()
        server.start()

    def restart() -> None:
        server.kill()
        server.start()

    with children.running(*writers):
        all_appended()
        while len(troubles) < 5 or time.monotonic() < deadline:
            trouble = (hang, pause, die, die_stopped, restart)[troubles.total() % 5]
            trouble()
            troubles[trouble.__name__] += 1
            all_appended()
        for user, writer in zip(_USERS, writers, strict=True):
            steady.stopped(writer, notes[user])
    messages = archives = lost = 0
    with open_journal(url) as journal:
        for user in _USERS:
            found = numbered.Found(journal, user)
            lost += len(found.lost("w", notes[user].done))
            found.judge(report, "w", notes[user].done, may_lose=may_lose)
            found.judge_the_rest(report, {"w": notes[user].done})
            for archive, data in found.damage:
                report.violated("a half record stayed", f"{archive} {data!r:.100}")
            messages, archives = messages + found.messages, archives + len(found.archives)
        stats = journal.get_stats()
    report.must(stats.total_messages == messages, "the statistics count other messages", stats)
    report.must(stats.total_archived_conversations == archives, "the statistics count other archives", stats)
    report.figure("outages", counted(troubles))
    report.figure("appends refused, and given again", sum(each.refused for each in notes.values()))
    report.figure("records acknowledged", sum(each.done for each in notes.values()))
    report.figure("of them lost", lost)
    report.figure("messages in the end", messages)
