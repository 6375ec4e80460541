"""`python -m tests.support.worker URL EXPRESSION`: does jobs one by one, in the order that Inngest documents.

It is not Inngest. It takes the events that the stand-in for the event API at URL has accepted, and always
starts the waiting one with the smallest (time of arrival - head start); EXPRESSION, a `priority.run`
evaluated as CEL, gives the head start in seconds, within Inngest's documented limits. For each number read
from stdin it does that many jobs, and prints one JSON line for each.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import httpx

from tests.support.cel import head_start
from tests.support.patience import PATIENCE_SECONDS


class Worker:
    """The waiting events, and how many have been seen."""

    def __init__(self, url: str, expression: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS)
        self._expression = expression
        self._seen = 0
        self._waiting: list[tuple[float, int, dict[str, Any]]] = []

    def do_next(self) -> dict[str, Any] | None:
        """Do the next job; None if none waits."""
        self._take_new_events()
        if not self._waiting:
            return None
        self._waiting.sort(key=lambda job: job[:2])
        starts_at, number, event = self._waiting.pop(0)
        return {"number": number, "name": event["name"], "starts_at": starts_at, **event["data"]}

    def _take_new_events(self) -> None:
        accepted = self._http.get("/stand-in/accepted").json()["accepted"]
        for event in accepted[self._seen :]:
            arrived_at = time.monotonic()
            seconds = head_start(self._expression, event)
            self._waiting.append((arrived_at - seconds, self._seen, event))
            self._seen += 1


def main() -> None:
    """Work until stdin ends."""
    worker = Worker(*sys.argv[1:])
    for line in sys.stdin:
        for _ in range(int(line)):
            print(json.dumps(worker.do_next()), flush=True)


if __name__ == "__main__":
    main()
