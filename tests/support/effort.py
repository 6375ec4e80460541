"""How many cases a test tries that makes them up at random: a quarter, or with PRIORITYD_TEST_THOROUGH=1 all.

What is said of them is the same. `.ci/run` is thorough on every version of PostgreSQL.
"""

from __future__ import annotations

import os
from typing import Final

_PART: Final = 1 if os.environ.get("PRIORITYD_TEST_THOROUGH") == "1" else 4


def tries(thorough: int) -> int:
    """Of so many cases, how many are tried."""
    return thorough // _PART
