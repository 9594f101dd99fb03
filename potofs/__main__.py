"""`python -m potofs` is the command `potofs`."""

from potofs.cli import main

main()
