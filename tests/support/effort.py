"""How many random cases a test tries: a quarter, or all with PRIORITYD_TEST_THOROUGH=1.

`.ci/run` is thorough on every version of PostgreSQL.
"""

from __future__ import annotations

import os
from typing import Final

_PART: Final = 1 if os.environ.get("PRIORITYD_TEST_THOROUGH") == "1" else 4


def tries(thorough: int) -> int:
    """How many of this number of cases are tried."""
    return thorough // _PART
