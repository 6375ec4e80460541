"""`python -m tests.chaos --minutes 20 --seed 7 --daemons 2`: prints one line of JSON.

The exit code is 1 if rows or audit entries are wrong at the end, if entries record what did not happen, if a
recovery took over 30 seconds, or if a daemon misbehaved.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from priorityd.daemon.sandbox.worlds import PLAIN
from tests.chaos.faults import FAULTS
from tests.chaos.mischief import MISCHIEF
from tests.chaos.run import Plan, run_chaos


def main() -> int:
    """Read the arguments, run, print the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long to break things")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of everything random")
    parser.add_argument("--daemons", type=int, default=1, help="how many daemons run at the same time")
    parser.add_argument("--world", choices=(PLAIN, *MISCHIEF), default=PLAIN, help="the application's schema")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), default=sorted(FAULTS), metavar="FAULT")
    parser.add_argument("--every-kind", action="store_true", help="go on until each fault has happened once")
    parser.add_argument("--longest", type=float, default=60.0, help="the most seconds that a fault may last")
    parser.add_argument("--talk", action="store_true", help="report each episode on stderr")
    chosen = parser.parse_args()
    # As with Ctrl-C: end everything that was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(
        seed=chosen.seed,
        seconds=chosen.minutes * 60,
        every_kind=chosen.every_kind,
        daemons=chosen.daemons,
        kinds=chosen.only,
        usual_seconds=min(8.0, chosen.longest),
        longest_seconds=chosen.longest,
        talk=chosen.talk,
        world=chosen.world,
    )
    summary = asyncio.run(run_chaos(plan))
    print(summary.as_json())
    return int(summary.failed)


if __name__ == "__main__":
    sys.exit(main())
