"""Secrets stay secret: everything that a process writes, answers or shows is searched for its keys.

The helpers that run processes pass everything to `look`. A secret that is found fails the test at once, and
also the whole run at its end, in case the failure was mistaken for another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

LOOKED_AT: Final[Counter[str]] = Counter()
"""The number of texts searched, by kind."""
LEAKS: Final[Counter[str]] = Counter()
"""The kinds in which a secret was found."""

_SECRET_NAMES: Final = ("KEY", "SECRET", "TOKEN", "PASSWORD")
_SHORTEST: Final = 8


def secrets_in(environment: Mapping[str, object]) -> tuple[str, ...]:
    """The secrets in a process's environment; of JSON web tokens also the signature alone."""
    values = {
        str(value)
        for name, value in environment.items()
        if any(word in name for word in _SECRET_NAMES) and len(str(value)) >= _SHORTEST
    }
    signatures = {value.rpartition(".")[2] for value in values if value.count(".") == 2}
    return tuple(sorted(values | {each for each in signatures if len(each) >= _SHORTEST}))


def look(kind: str, text: str, secrets: Iterable[str]) -> None:
    """Raise `AssertionError` if the text holds a secret; the message does not."""
    LOOKED_AT[kind] += 1
    if any(secret in text for secret in secrets):
        LEAKS[kind] += 1
        raise AssertionError(f"a secret is in {kind}")


def look_at_process(pid: int, secrets: Iterable[str]) -> None:
    """The same for what `ps` shows to everybody: the command line and title."""
    directory = Path("/proc") / str(pid)
    for name in ("cmdline", "comm"):
        try:
            text = (directory / name).read_bytes().decode(errors="replace")
        except OSError:
            return
        look(f"/proc/PID/{name}", text, secrets)
