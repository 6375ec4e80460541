"""One clean Debian for all of these tests, and the sandbox that what is installed in it runs against."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.clean_root import debian_root, demand_root_rights


@pytest.fixture(scope="session")
def new_directory() -> Iterator[Callable[[str], Path]]:
    """Makes directories that are gone after the tests: roots are large, and pytest would keep them."""
    with tempfile.TemporaryDirectory(prefix="priorityd-deploy-") as parent:
        yield lambda name: Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


@pytest.fixture(scope="session")
def debian() -> Iterator[Path]:
    """The root directory of a minimal Debian, not to be written to."""
    demand_root_rights()
    with debian_root() as root:
        yield root
