"""`python -m tests.checks`: situation, finding, remedy, exit code, and whether that helped, as a table.

With `--match TEXT` only situations whose name holds that text. The exit code is 1 if one is not as it must
be.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path

from priorityd.daemon.sandbox.postgres import embedded_postgres
from tests.checks.forks import priorityd_forks
from tests.checks.run import Row, place_on, run_in
from tests.checks.situation import Situation
from tests.checks.table import SITUATIONS, as_line, headline
from tests.support.database import Server, installed

_AT_ONCE = 3


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.checks", description=__doc__)
    parser.add_argument("--match", default="", metavar="TEXT")
    match = parser.parse_args().match
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = asyncio.run(_run([each for each in SITUATIONS if match in each.name]))
    print(headline())
    for row in rows:
        print(as_line(row))
    good = sum(row.good_after for row in rows)
    print(f"{good} of {len(rows)} situations are reported as they must be, and fixed by following the advice")
    return int(good < len(rows))


async def _run(situations: list[Situation]) -> list[Row]:
    with ExitStack() as stack:
        postgres = stack.enter_context(embedded_postgres())
        server = Server(postgres.url())
        template = stack.enter_context(installed(server, "plain"))
        forks = stack.enter_context(priorityd_forks())
        turn, role = asyncio.Semaphore(_AT_ONCE), asyncio.Lock()

        async def one(situation: Situation) -> Row:
            async with role if situation.makes_role else nullcontext(), turn:
                return await _row(server, template, situation, forks)

        return await asyncio.gather(*(one(situation) for situation in situations))


async def _row(server: Server, template: str, situation: Situation, forks: Path) -> Row:
    with server.database(template) as database, tempfile.TemporaryDirectory() as directory:
        try:
            async with place_on(database, Path(directory)) as place:
                return await run_in(place, situation, forks)
        except AssertionError as error:
            print(f"{situation.name}: {error}", file=sys.stderr)
            return Row(situation, {}, -1, good_after=False)


if __name__ == "__main__":
    sys.exit(main())
