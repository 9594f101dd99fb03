"""Measures, prints a table, and puts it into README.md if asked to."""

import argparse
import sys
from collections.abc import Callable, Iterator

from bench import calls, growth, scale, tables

TABLES: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "calls": lambda arguments: calls.table(arguments.rounds),
    "growth": lambda _: growth.table(),
    "scale": lambda _: scale.table(),
}


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("table", nargs="?", choices=TABLES, default="calls", help="what to measure (default: calls)")
    parser.add_argument("--keep", action="store_true", help="write the table into README.md")
    parser.add_argument("--rounds", type=int, default=15, help="of calls: how often each is done (default: 15)")
    arguments = parser.parse_args()
    lines = []
    for line in TABLES[arguments.table](arguments):
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    if arguments.keep:
        tables.keep(arguments.table, lines)


main()
