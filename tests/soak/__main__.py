"""Runs scenarios of hard use, all of them if none is named, and prints a table of figures for each.

Exits with 1 if anything was lost that may not be, or doubled, torn or out of order.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.soak import daemons, failover, full, kills, load, mixed, mounts, outages, places
from tests.soak.report import Report


class Length(NamedTuple):
    """How long scenarios go on; None is as long as each of them does by itself."""

    rounds: int | None
    seconds: float | None

    def rounds_or(self, default: int) -> int:
        return default if self.rounds is None else self.rounds

    def seconds_or(self, default: float) -> float:
        return default if self.seconds is None else self.seconds


#: One run in a folder that is there.
Run = Callable[[Path], Report]


def _mixed(length: Length) -> Iterator[Run]:
    for backend in places.BACKENDS:
        yield lambda folder, backend=backend: mixed.run(backend, folder, seconds=length.seconds_or(120))  # type: ignore[misc]


def _mounts(length: Length) -> Iterator[Run]:
    for backend in places.BACKENDS:
        yield lambda folder, backend=backend: mounts.run(backend, folder, seconds=length.seconds_or(120))  # type: ignore[misc]


def _load(length: Length) -> Iterator[Run]:
    for backend in places.BACKENDS:
        yield lambda folder, backend=backend: load.run(  # type: ignore[misc]
            backend, folder, seconds=length.seconds_or(60), rounds=length.rounds_or(1)
        )


def _kills(length: Length) -> Iterator[Run]:
    number = length.rounds_or(120)
    yield lambda folder: kills.run("filesystem", folder, kills=number)
    yield lambda folder: kills.run("filesystem", folder, kills=number, fsync="always")
    yield lambda folder: kills.run("redis", folder, kills=number)


def _daemons(length: Length) -> Iterator[Run]:
    yield lambda folder: daemons.run(folder, kills=length.rounds_or(60))


def _full(length: Length) -> Iterator[Run]:
    yield lambda folder: full.run(folder, seconds=length.seconds_or(60))


def _outages(length: Length) -> Iterator[Run]:
    yield lambda folder: outages.run(folder, seconds=length.seconds_or(60))
    yield lambda folder: outages.run(folder, seconds=length.seconds_or(60), appendfsync="everysec")


def _failover(length: Length) -> Iterator[Run]:
    number = length.rounds_or(20)
    for kind in failover.KINDS:
        for replicas in (0, 1):
            yield lambda folder, kind=kind, replicas=replicas: failover.run(  # type: ignore[misc]
                kind, folder, rounds=number, wait_replicas=replicas
            )


#: What each goes on for, and its runs.
SCENARIOS: dict[str, tuple[str, Callable[[Length], Iterator[Run]]]] = {
    "mixed": ("seconds", _mixed),
    "mounts": ("seconds", _mounts),
    "load": ("rounds of seconds", _load),
    "kills": ("rounds", _kills),
    "daemons": ("rounds", _daemons),
    "full": ("seconds", _full),
    "outages": ("seconds", _outages),
    "failover": ("rounds", _failover),
}


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=(__doc__ or "").partition("\n")[0])
    listed = "; ".join(f"{name} ({unit})" for name, (unit, _) in SCENARIOS.items())
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{listed}; all of them by default")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many kills, failovers or rounds each run has")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="how long each of the other runs, or a round, goes on"
    )
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}: there are {', '.join(SCENARIOS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds is 1 at least")
    length = Length(arguments.rounds, arguments.seconds)
    failed = []
    for name in arguments.scenarios or SCENARIOS:
        for run in SCENARIOS[name][1](length):
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="potofs-soak-") as folder:
                report = run(Path(folder))
            report.figure("it took", f"{time.monotonic() - begun:.0f} s")
            sys.stdout.write(f"{report.text()}\n")
            sys.stdout.flush()
            if report.violations:
                failed.append(report.title)
    if failed:
        sys.stderr.write(f"soak: failed: {'; '.join(failed)}\n")
    return 1 if failed else 0


# Processes that the scenarios start import this module as well.
if __name__ == "__main__":
    sys.exit(main())
