"""Progress of long commands, on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from priorityd.daemon.clock import monotonic

_LINE_SECONDS: Final = 5.0
"""Between two plain lines: seldom enough for a log, often enough to notice a hang."""
_CLEAR_LINE: Final = "\r\x1b[2K"

Advance = Callable[[int], None]


class Meter:
    """Shows a command's progress; `before_output` is called before it writes anything else."""

    def __init__(self, advance: Advance, before_output: Callable[[], None]) -> None:
        self.advance = advance
        self.before_output = before_output


@contextmanager
def meter(label: str, total: int | None) -> Iterator[Meter]:
    """A meter over `total` items; None shows nothing."""
    if total is None:
        yield Meter(lambda _: None, lambda: None)
    elif sys.stderr.isatty():
        with click.progressbar(length=max(1, total), label=label, file=sys.stderr, show_pos=True) as bar:
            yield Meter(bar.update, lambda: click.echo(_CLEAR_LINE, nl=False, err=True))
            # Rows deleted meanwhile are never counted, so the bar is filled at the end.
            bar.update(max(0, total - bar.pos))
    else:
        yield Meter(_plain_lines(label, total), lambda: None)


def _plain_lines(label: str, total: int) -> Advance:
    done, printed_at = 0, monotonic()

    def advance(items: int) -> None:
        nonlocal done, printed_at
        done += items
        if monotonic() - printed_at >= _LINE_SECONDS:
            printed_at = monotonic()
            click.echo(f"{label}: {done} of {total}", err=True)

    return advance
