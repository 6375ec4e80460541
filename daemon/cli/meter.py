"""How far long work has come, on stderr: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from priorityd.daemon.clock import monotonic

_LINE_SECONDS: Final = 5.0
"""Between two plain lines: a kept log stays short, and a hang is noticed."""
_CLEAR_LINE: Final = "\r\x1b[2K"

Advance = Callable[[int], None]


class Meter:
    """Shows a command's progress; `before_output` is called before it writes anything else."""

    def __init__(self, advance: Advance, before_output: Callable[[], None]) -> None:
        self.advance = advance
        self.before_output = before_output


@contextmanager
def meter(label: str, total: int | None) -> Iterator[Meter]:
    """A meter over `total` items (None: unknown, or not to be shown)."""
    if total is None:
        yield Meter(lambda _: None, lambda: None)
    elif sys.stderr.isatty():
        with click.progressbar(length=max(1, total), label=label, file=sys.stderr, show_pos=True) as bar:
            yield Meter(bar.update, lambda: click.echo(_CLEAR_LINE, nl=False, err=True))
            # Rows that were deleted meanwhile do not come; the bar ends full all the same.
            bar.update(max(0, total - bar.pos))
    else:
        yield Meter(_plain_lines(label, total), lambda: None)


def _plain_lines(label: str, total: int) -> Advance:
    done, told_at = 0, monotonic()

    def advance(items: int) -> None:
        nonlocal done, told_at
        done += items
        if monotonic() - told_at >= _LINE_SECONDS:
            told_at = monotonic()
            click.echo(f"{label}: {done} of {total}", err=True)

    return advance
