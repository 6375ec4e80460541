"""The wall clock of the daemons' host, which can jump while they run; CLOCK_MONOTONIC is not affected.

The daemons run with libfaketime (a shared library that comes with the Python package of that name) in front
of the C library; it reads the offset from a file, once a second.
"""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

HOUR_SECONDS = 3600


def _library() -> Path | None:
    # The package brings a library for this platform only.
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    package = find_spec("libfaketime")
    if package is None or package.origin is None:
        return None
    library = Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return library if library.exists() else None


LIBRARY = _library()


_SHARED_MEMORY = Path("/dev/shm")


class Clock:
    """The offset, kept in a file of this directory; at the end of the block nobody uses it any more."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._offset = 0
        self._write()

    @property
    def settings(self) -> dict[str, Any]:
        """The environment that makes a process use this clock."""
        if LIBRARY is None:
            return {}
        return {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "FAKETIME_CACHE_DURATION": 1,
        }

    def jump(self, seconds: int) -> None:
        """Put the clock forward, or back."""
        self._offset += seconds
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Of a process that was killed the library leaves these behind.
        for file in _SHARED_MEMORY.glob("*faketime_s[eh]m_*"):
            if not Path("/proc", file.name.rpartition("_")[2]).exists():
                file.unlink(missing_ok=True)

    def _write(self) -> None:
        # Replaced as a whole: a process may be reading it.
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._offset:+d}\n")
        new.replace(self._file)
