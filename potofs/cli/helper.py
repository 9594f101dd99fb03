"""How mount(8) calls us: as /sbin/mount.fuse.potofs, a link to potofs, or by way of mount.fuse3, as a program of the
type's name with a source and a mountpoint.
"""

import os
from collections.abc import Sequence

import click

from potofs.cli.commands import potofs

#: What mount(8) looks for in /sbin, and the command that it comes to here.
NAME = "mount.fuse.potofs"
_OF_FUSE3 = frozenset({"dev", "suid"})


def arguments_of(program: str, arguments: Sequence[str]) -> list[str]:
    """The command line as it is meant: the helper's, if mount(8) has called."""
    is_link = os.path.basename(program).startswith("mount.")
    # mount.fuse3 always gives options, and no command of ours looks like a path or a URL.
    is_fuse3 = len(arguments) == 4 and arguments[2] == "-o" and bool({"/", ":"} & set(arguments[0]))
    if is_fuse3 and not is_link:
        # It adds these for whoever asked for neither nosuid nor nodev, and so for nearly everybody.
        given = (word for word in arguments[3].split(",") if word not in _OF_FUSE3)
        return [NAME, *arguments[:3], ",".join(given)]
    return [NAME, *arguments] if is_link else list(arguments)


@potofs.command(NAME, hidden=True)
@click.argument("source")
@click.argument("mountpoint")
@click.option("-o", "texts", multiple=True)
@click.option("-s", "sloppy", is_flag=True)
@click.option("-f", "fake", is_flag=True)
@click.option("-t", "kind")
@click.option("-N", "namespace")
@click.option("-n", "-v", "ignored", is_flag=True)
def mount_helper(
    source: str,
    mountpoint: str,
    texts: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    kind: str | None,
    namespace: str | None,
    ignored: bool,
) -> None:
    """Mount the journal at SOURCE, as mount(8) asks for it."""
    from potofs.cli import mounting
    from potofs.mount import options
    from potofs.mount.source import shown, where_of

    chosen = options.parse(texts, sloppy=sloppy)
    where = chosen.applied_to(where_of(source))
    if not fake:
        mounting.start(mountpoint, where, chosen, shown(source, where))
