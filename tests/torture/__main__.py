"""The program: runs cases from the command line."""

from __future__ import annotations

import argparse
import atexit
import sys
from functools import cache

from tests import torture
from tests.servers.postgres import PostgresServer
from tests.torture.cases import TARGETS, make_case
from tests.torture.check import check


@cache
def _server() -> PostgresServer:
    """Return the one PostgreSQL server, which ends with this process."""
    server = PostgresServer()
    atexit.register(server.close)
    return server


def main() -> int:
    """Run cases; return the exit code."""
    parser = argparse.ArgumentParser(description=(torture.__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100, help="cases of each target")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first case")
    parser.add_argument("--target", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    targets = arguments.target or TARGETS
    values = differences = 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        for target in targets:
            try:
                values += check(make_case(seed, target), seed, _server)
            except AssertionError as error:
                differences += 1
                sys.stderr.write(f"{error}\n")
    cases = arguments.cases * len(targets)
    sys.stdout.write(f"{cases} cases, {values:,} values compared, differences: {differences}\n")
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
