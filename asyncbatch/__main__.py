"""`python -m asyncbatch` is the command `asyncbatch`."""

from asyncbatch.cli import main

main()
