"""The command `potofs`: its entry point, and how every command ends."""

import os
import sys

import click

from potofs.cli import helper
from potofs.cli.commands import potofs
from potofs.cli.exits import FAILED, INTERRUPTED, MOUNT_FAILED
from potofs.errors import PotofsError, reason


def main() -> None:
    """Runs the command line and exits."""
    _open_standard_streams()
    arguments = helper.arguments_of(sys.argv[0], sys.argv[1:])
    failed = MOUNT_FAILED if arguments[:1] == [helper.NAME] else FAILED
    try:
        potofs.main(arguments, prog_name="potofs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough, `potofs show mia | head` for one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (PotofsError, OSError) as error:
        _fail(reason(error), failed)
    except ImportError as error:
        _fail(f"{error}: the installation is not whole, install potofs again", failed)


def _open_standard_streams() -> None:
    """Opens on nothing what whoever started us has closed: else the next file that is opened takes its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest number that is free.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (for the rest of the process)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _fail(why: str, code: int) -> None:
    click.echo(f"potofs: {why}", err=True)
    sys.exit(code)
