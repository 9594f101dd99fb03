"""What `potofs fsck` prints, and what it ends with."""

import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from potofs.cli.exits import DAMAGED, REPAIRED
from potofs.errors import Damaged
from potofs.journal.journal import DialogueJournal

# Goes back to the beginning of the line and clears it.
_CLEAR = "\r\033[K"


def check(journal: DialogueJournal, users: Sequence[str], repair: bool) -> int:
    """Checks some users, or without any the whole journal, prints what is found, and returns the exit code."""
    for user in users:
        journal.must_have_user(user)
    found = repaired = checked = 0
    shown = sys.stderr.isatty()
    length = len(users) or (_count(journal) if shown else 0)
    with click.progressbar(length=length, label="Checking", file=sys.stderr, hidden=not shown) as bar:

        def done(_: str) -> None:
            nonlocal checked
            checked += 1
            bar.update(1)

        for finding in journal.fsck(users or None, repair=repair, on_user=done):
            if shown:
                click.echo(_CLEAR, nl=False, err=True)
            click.echo(str(finding))
            found += 1
            repaired += finding.repaired
    left = found - repaired
    click.echo(f"users checked: {checked}; wrong: {found}; repaired: {repaired}; left: {left}")
    if left:
        return DAMAGED
    return REPAIRED if found else 0


def _count(journal: DialogueJournal) -> int:
    """How many users there are, as far as they can be listed."""
    count = 0
    with suppress(Damaged):
        for _ in journal.users():
            count += 1
    return count
