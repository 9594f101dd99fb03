"""The command `potofs`: its entry point, and how every command ends.

Exit codes: 0 done; 1 refused or impossible, for a reason in one line on standard error; 2 the command line is wrong;
130 interrupted by Ctrl-C.
"""

import os
import sys

import click

from potofs.cli.commands import potofs
from potofs.errors import PotofsError

FAILED = 1
INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits."""
    try:
        potofs.main(prog_name="potofs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough, `potofs show mia | head` for one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except PotofsError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except ImportError as error:
        _fail(f"{error}: the installation is not whole, install potofs again")


def _fail(reason: str) -> None:
    click.echo(f"potofs: {' '.join(reason.split())}", err=True)
    sys.exit(FAILED)
