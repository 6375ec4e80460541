"""The table of `scale`: what was measured for each number of rows, and the exponent of each line."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from tests.benchmarks.figures import Json

Measures = dict[str, float]


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def as_table(columns: dict[int, Measures]) -> dict[str, Json]:
    names = next(iter(columns.values()))
    return {
        name: {
            **{str(rows): round(measures[name], 4) for rows, measures in columns.items()},
            "exponent": exponent({rows: measures[name] for rows, measures in columns.items()}),
        }
        for name in names
    }


def exponent(costs: dict[int, float]) -> float | None:
    """The slope of the costs over the rows on logarithmic scales; None if there is none."""
    if len(costs) < 2 or min(costs.values()) <= 0:
        return None
    xs, ys = [math.log(rows) for rows in costs], [math.log(cost) for cost in costs.values()]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return round(over / sum((x - mean_x) ** 2 for x in xs), 2)


def print_table(table: dict[str, Json], rows: Sequence[int]) -> None:
    """For people, as Markdown."""
    say("| what | " + " | ".join(f"{number:,}" for number in rows) + " | exponent |")
    say("|---|" + "---|" * (len(rows) + 1))
    for name, line in table.items():
        cells = [_shown(line[str(number)]) for number in rows]
        say(f"| {name} | " + " | ".join(cells) + f" | {line['exponent']} |")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
