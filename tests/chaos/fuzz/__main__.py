"""`python -m tests.chaos.fuzz --frames 900000 --answers 100000 --seed 1`: prints one JSON line.

The exit code is 1 if anything crashed or was not heard.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

from tests.chaos.fuzz.run import fuzz


def main() -> int:
    """Read the arguments, run, print the outcome."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=900_000, help="of the change stream")
    parser.add_argument("--answers", type=int, default=100_000, help="of RPCs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of everything random")
    chosen = parser.parse_args()
    outcome = asyncio.run(fuzz(frames=chosen.frames, answers=chosen.answers, seed=chosen.seed))
    print(outcome.as_json())
    return int(bool(outcome.crashes))


if __name__ == "__main__":
    sys.exit(main())
