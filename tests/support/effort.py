"""How many cases a test tries: of random ones a quarter, or all with PRIORITYD_TEST_THOROUGH=1.

`.ci/run release` tries all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import pytest

_PART: Final = 1 if os.environ.get("PRIORITYD_TEST_THOROUGH") == "1" else 4


def tries(thorough: int) -> int:
    """How many of this number of cases are tried."""
    return thorough // _PART


def some_of(cases: Mapping[str, object], *usual: str) -> list[Any]:
    """Each case as a parameter: these are tried in every run, the others with the marker `worlds`.

    A case that is a tuple is several parameters.
    """
    assert cases.keys() >= set(usual)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=name,
            marks=() if name in usual else pytest.mark.worlds,
        )
        for name, case in cases.items()
    ]
