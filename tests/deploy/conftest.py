"""One clean Debian for all of these tests, and the sandbox that what is installed in it runs against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import stack
from tests.deploy.clean_root import debian_root, demand_root_rights

__all__ = ["stack"]


@pytest.fixture(scope="session")
def debian() -> Iterator[Path]:
    """The root directory of a minimal Debian, not to be written to."""
    demand_root_rights()
    with debian_root() as root:
        yield root
