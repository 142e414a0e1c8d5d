"""`python -m asyncbatch` is the command `asyncbatch`."""

import os

try:
    from asyncbatch.cli import main
except KeyboardInterrupt:  # Ctrl-C before `main` has set its handlers
    os._exit(130)

main()
