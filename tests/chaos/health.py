"""`python -m tests.chaos.health`: how each fault is reported, and how soon, as a table.

Each fault is injected into a sandbox with two daemons and a Prometheus that scrapes them every 5 s and has
the rules of `deploy/prometheus`. One daemon is watched until it, and Prometheus, have said all that they
will, for `--hold` seconds at most; then the fault is healed, and the clock runs until the daemon is ready
again and knows no problem. A leader that is gone is replaced before anything is late: there what is to be
said is that another daemon leads. The exit code is 1 if a headline
took over 30 s, or a recovery.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import yaml

from tests.chaos import leaders
from tests.chaos.database import insist
from tests.chaos.health_faults import ADD, FAULTS, Scene, new_ids
from tests.chaos.run import Plan, open_world
from tests.deploy.rules import ALERTS
from tests.support.daemon_process import PLAIN, Daemon, eventually, free_port
from tests.support.repository import DEPLOY

LIMIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.25
_SCRAPE: Final = "5s"
_WELL_SECONDS: Final = 180.0


@dataclass
class Row:
    """Seconds from the fault until each report, and its text; None if it never came."""

    fault: str
    not_ready: tuple[float, str] | None = None
    headline: tuple[float, str] | None = None
    problem: tuple[float, str] | None = None
    alert: tuple[float, str] | None = None
    recovery: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it was reported too late."""
        return self.headline is None or self.headline[0] > LIMIT_SECONDS

    @property
    def is_bad(self) -> bool:
        """Whether it was reported too late, or for too long."""
        return self.is_late or self.recovery is None or self.recovery > LIMIT_SECONDS


_TOLD: Final = {name for name, rule in ALERTS.items() if "workspace_priority_problem" in rule["expr"]}
"""Alerts that end with their problem; others look some time back."""
_TAKEN_OVER: Final = "leader gone"
"""The fault of which no more needs to be said than that another daemon has taken over."""


# Watching.


@dataclass
class Seen:
    """What a daemon and Prometheus report at a moment."""

    ready: bool | None = None
    is_led: bool = False
    not_ready_because: str = ""
    headline: str | None = None
    problems: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        return self.ready is True and self.headline is not None and not self.problems


async def look(scene: Scene, daemon: Daemon) -> Seen:
    """Ask both."""
    ready, status, leader = await asyncio.gather(
        daemon.get("/readyz"), daemon.get("/status"), leaders.leader(scene.world.fleet)
    )
    report = status.json() if status is not None and status.is_success else {}
    return Seen(
        ready=None if ready is None else ready.is_success,
        is_led=leader is not None,
        not_ready_because="" if ready is None else ready.text.strip(),
        headline=report.get("headline"),
        problems=[problem["name"] for problem in report.get("problems", ())],
        alerts=await _alerts(scene),
    )


async def _alerts(scene: Scene) -> list[str]:
    if scene.prometheus is None:
        return []
    async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
        answer = (await client.get(f"{scene.prometheus}/api/v1/alerts")).json()
    return [
        alert["labels"]["alertname"]
        for alert in answer["data"]["alerts"]
        if alert["state"] == "firing" and alert["labels"]["alertname"] != "PrioritydDown"
    ]


async def try_out(scene: Scene, fault: str, hold_seconds: float) -> Row:
    """Inject it, watch, heal it, watch again."""
    daemon = await _watched(scene, leads=fault != _TAKEN_OVER)
    well = await eventually(lambda: _well(scene, daemon), _WELL_SECONDS)
    row, began = Row(fault), time.monotonic()
    async with FAULTS[fault](scene):
        while (after := time.monotonic() - began) < hold_seconds:
            _note(row, await look(scene, daemon), well, after)
            if _all_is_said(row, after):
                break
            await asyncio.sleep(_POLL_SECONDS)
    # A fault that heals by itself has healed when another daemon has taken over.
    healed = began if fault == _TAKEN_OVER else time.monotonic()
    with contextlib.suppress(AssertionError):
        # Its end is measured, so it is looked for often.
        await eventually(lambda: _is_over(scene, daemon), _WELL_SECONDS, longest_pause=0.1)
        row.recovery = round(time.monotonic() - healed, 1)
    return row


def _all_is_said(row: Row, after: float) -> bool:
    if row.fault == _TAKEN_OVER:
        return row.headline is not None
    return bool(row.headline and row.problem and row.alert and (row.not_ready or after > LIMIT_SECONDS))


def _note(row: Row, seen: Seen, well: Seen, after: float) -> None:
    seconds = round(after, 1)
    if seen.ready is False and row.not_ready is None:
        row.not_ready = seconds, seen.not_ready_because
    if seen.problems and row.problem is None:
        row.problem = seconds, seen.problems[0]
    if seen.problems and seen.headline and seen.headline != well.headline and row.headline is None:
        row.headline = seconds, seen.headline
    if row.fault == _TAKEN_OVER and seen.is_led and row.headline is None:
        row.headline = seconds, "Another daemon leads."
    # Some look an hour back, and still fire for a fault that went before.
    new = [alert for alert in seen.alerts if alert not in well.alerts]
    if new and row.alert is None:
        row.alert = seconds, new[0]


async def _well(scene: Scene, daemon: Daemon) -> Seen | None:
    seen = await look(scene, daemon)
    return seen if seen.is_well and not _TOLD.intersection(seen.alerts) else None


async def _is_over(scene: Scene, daemon: Daemon) -> bool:
    seen = await look(scene, daemon)
    return seen.is_well and seen.is_led


async def _watched(scene: Scene, *, leads: bool) -> Daemon:
    """The leader, or the daemon that is not the leader, once both work."""
    fleet = scene.world.fleet

    async def found() -> Daemon | None:
        leader = await leaders.leader(fleet)
        if leader is None or len(fleet.running) < 2 or leads:
            return leader
        return next(daemon for daemon in fleet.running.values() if daemon is not leader)

    daemon: Daemon = await eventually(found)
    return daemon


# The parts.


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    """Two daemons that announce, with something in a workspace; and Prometheus, if it is installed."""
    async with open_world(Plan(seed=1, daemons=2), PRIORITYD_DISPATCH_CHANGES="true") as world:
        await insist(world.url, ADD, new_ids())
        scene = Scene(world)
        async with _prometheus([daemon.port for daemon in world.fleet.running.values()]) as address:
            scene.prometheus = address
            yield scene


@asynccontextmanager
async def _prometheus(ports: list[int]) -> AsyncIterator[str | None]:
    """Prometheus scrapes fixed ports: a restarted daemon has another one, and is not scraped."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="prometheus-") as directory:
        config = Path(directory) / "prometheus.yml"
        targets = [f"127.0.0.1:{port}" for port in ports]
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": _SCRAPE, "evaluation_interval": _SCRAPE},
                    "rule_files": [str(path) for path in (DEPLOY / "prometheus").glob("*.rules.yml")],
                    "scrape_configs": [{"job_name": "priorityd", "static_configs": [{"targets": targets}]}],
                }
            )
        )
        address = f"127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={address}",
            "--log.level=error",
        )
        try:
            await eventually(lambda: _answers(f"http://{address}/-/ready"))
            yield f"http://{address}"
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, verify=PLAIN) as client:
        try:
            return (await client.get(url)).is_success
        except httpx.TransportError:
            return False


# The command.


def as_table(rows: list[Row]) -> str:
    """The table for people: a row for each fault."""
    heads = ("fault", "not ready", "headline", "problem", "first alert", "recovery")
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for row in rows:
        cells = (
            row.fault,
            "–" if row.not_ready is None else f"{row.not_ready[0]:.1f} s",
            *(
                f"{pair[0]:.1f} s {pair[1]}" if pair else "–"
                for pair in (row.headline, row.problem, row.alert)
            ),
            "–" if row.recovery is None else f"{row.recovery:.1f} s",
        )
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


async def run(faults: list[str], hold_seconds: float) -> list[Row]:
    """A row for each."""
    rows = []
    async with open_scene() as scene:
        for fault in faults:
            rows.append(await try_out(scene, fault, hold_seconds))
            print(json.dumps(rows[-1].__dict__), file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Read the arguments, run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.health", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--hold", type=float, default=60.0, help="the most seconds that a fault lasts")
    chosen = parser.parse_args()
    rows = asyncio.run(run(chosen.only, chosen.hold))
    print(as_table(rows))
    return int(any(row.is_bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
