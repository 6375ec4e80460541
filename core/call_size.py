"""How many rows to ask for in one call, so that calls take about the desired time on any database.

The cost of a row varies a thousandfold: an application's trigger may take 40 ms for each. A call too large
for the database's time limit achieves nothing, however often it is repeated, and holds the locks of the rows
that it has written meanwhile. So calls start small, grow and shrink with the time that the last one took, and
one that timed out is retried with half as many rows, down to one.

Only time that grows with the rows may count, so it is measured in the database. Where the way there, or a
busy gateway, takes longer than a call should, each call would otherwise be smaller than the last, down to one
row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CallSize:
    """The size of the next call: `rows`, never above `most`.

    `aim_seconds` is how long a call should take, `growth` how many times as large the next may be at most.
    """

    rows: int
    most: int
    aim_seconds: float
    growth: float = 4.0

    def answered(self, rows: int, seconds: float) -> None:
        """A call with so many rows took the database so long.

        A quick small one says nothing about a large one.
        """
        fitting = int(rows * min(self.aim_seconds / max(seconds, 0.001), self.growth))
        if seconds > self.aim_seconds:
            self.rows = max(1, min(fitting, self.rows))
        elif rows >= self.rows:
            self.rows = max(self.rows, min(max(fitting, rows + 1), self.most))

    def timed_out(self, rows: int) -> bool:
        """A call with so many rows timed out; returns whether the next one asks for fewer."""
        self.rows = max(1, rows // 2)
        return rows > 1
