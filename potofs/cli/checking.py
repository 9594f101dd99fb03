"""What `potofs fsck` prints, and what it ends with."""

import sys
from collections.abc import Sequence

import click

from potofs.cli.exits import DAMAGED, REPAIRED
from potofs.journal.journal import DialogueJournal

# Goes back to the beginning of the line and clears it.
_CLEAR = "\r\033[K"


def check(journal: DialogueJournal, users: Sequence[str], repair: bool) -> int:
    """Checks some users, or without any the whole journal, prints what is found, and returns the exit code."""
    for user in users:
        journal.must_have_user(user)
    count = len(users) or sum(1 for _ in journal.users())
    found = repaired = 0
    shown = sys.stderr.isatty()
    with click.progressbar(length=count, label="Checking", file=sys.stderr, hidden=not shown) as bar:
        for finding in journal.fsck(users or None, repair=repair, on_user=lambda _: bar.update(1)):
            if shown:
                click.echo(_CLEAR, nl=False, err=True)
            click.echo(str(finding))
            found += 1
            repaired += finding.repaired
    left = found - repaired
    click.echo(f"users checked: {count}; wrong: {found}; repaired: {repaired}; left: {left}")
    if left:
        return DAMAGED
    return REPAIRED if found else 0
