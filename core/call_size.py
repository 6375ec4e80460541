"""How many rows to ask for in one call, so that calls take about as long as is wished on any database.

What a row costs differs a thousandfold: an application's trigger may take 40 ms for each. A call that is too
large for the database's time limit does nothing at all, however often it is repeated, and while it runs it
keeps the rows locked that it has written. So calls begin small, grow and shrink by the time that the last one
took, and one that timed out is tried again with half as many rows, down to one.
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
        """A call with so many rows took so long. A small one that was quick says nothing of a large one."""
        fitting = int(rows * min(self.aim_seconds / max(seconds, 0.001), self.growth))
        if seconds > self.aim_seconds:
            self.rows = max(1, min(fitting, self.rows))
        elif rows >= self.rows:
            self.rows = max(self.rows, min(max(fitting, rows + 1), self.most))

    def timed_out(self, rows: int) -> bool:
        """A call with so many rows got no answer in time; whether the next one asks for fewer."""
        self.rows = max(1, rows // 2)
        return rows > 1
