"""What several commands take: where the journal is."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from potofs import config
from potofs.config import Where
from potofs.errors import ConfigError

#: Says what --backend says, but to nobody who lists processes: a URL may have a password in it.
ENVIRONMENT_VARIABLE = "POTOFS_BACKEND"

Command = TypeVar("Command", bound=Callable[..., Any])


def journal_options(command: Command) -> Command:
    """Gives a command --root and --backend; it gets them as `where`."""

    def where(context: click.Context, parameter: click.Parameter, url: str | None) -> Where:
        root: str | None = context.params.pop("root", None)
        if url is not None and root is not None:
            if context.get_parameter_source("where") is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("--root and --backend both say where the journal is: give one of them")
            url = None
        if root == "":
            raise click.UsageError("--root is empty: name a folder")
        return config.parse(url) if url is not None else config.root(root or config.DEFAULT_ROOT)

    root_option = click.option(
        "--root",
        metavar="DIR",
        is_eager=True,
        help=f"The folder that the journal is in.  [default: {config.DEFAULT_ROOT}]",
    )
    backend_option = click.option(
        "--backend",
        "where",
        metavar="URL",
        envvar=ENVIRONMENT_VARIABLE,
        callback=where,
        help="The journal's backend and its settings, such as file:///var/lib/poto?archiveThreshold=500.",
    )
    return root_option(backend_option(command))


def refuse_memory(where: Where) -> None:
    """Raises ConfigError where what a command stores would be gone with it."""
    if where.scheme == "memory":
        raise ConfigError(
            "memory: is gone with this command: use it with mount or in a program, or give --root DIR here"
        )
