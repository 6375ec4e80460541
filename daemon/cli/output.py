"""How commands print: JSON to stdout, messages to stderr, and long lists cut short."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import click

SHOWN: Final = 5
"""How many items of a long list are named."""


def print_json(value: object) -> None:
    """Print one line of JSON, dates and uuids as text."""
    from pydantic_core import to_jsonable_python

    click.echo(json.dumps(to_jsonable_python(value)))


def say(message: str) -> None:
    """Print a message to stderr, after the program's name."""
    click.echo(f"priorityd: {message}", err=True)


def listed(items: Sequence[str], *, total: int | None = None, shown: int = SHOWN) -> str:
    """The first of the items, separated by commas, and how many more there are of `total`."""
    more = (len(items) if total is None else total) - shown
    return ", ".join(items[:shown]) + (f" and {more:,} more" if more > 0 else "")
