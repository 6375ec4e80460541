"""`python -m tests.worlds`: the matrix as a table and as one line of JSON, exit code 1 if a cell is wrong."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from priorityd.daemon.sandbox.postgres import embedded_postgres
from priorityd.daemon.sandbox.worlds import WORLDS
from tests.support.database import Server
from tests.worlds.matrix import COLUMNS, Matrix, run_world


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("--world", nargs="+", choices=WORLDS, default=WORLDS, metavar="WORLD")
    parser.add_argument("--flow", nargs="+", choices=COLUMNS, default=COLUMNS, metavar="FLOW")
    parser.add_argument(
        "--repositories", type=int, default=200, help="the number of repositories in flows about many"
    )
    chosen = parser.parse_args()
    # As with Ctrl-C: end everything that was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    matrix = asyncio.run(_run(chosen.world, tuple(chosen.flow), chosen.repositories))
    print(matrix.as_table())
    print(matrix.as_json())
    return int(bool(matrix.of("wrong")))


async def _run(worlds: list[str], flows: tuple[str, ...], size: int) -> Matrix:
    matrix = Matrix()
    with embedded_postgres() as postgres:
        server = Server(postgres.url())
        for world in worlds:
            matrix.rows[world] = await run_world(server, world, size, flows)
            print(f"{world}: {[cell.outcome for cell in matrix.rows[world].values()]}", file=sys.stderr)
    return matrix


if __name__ == "__main__":
    sys.exit(main())
