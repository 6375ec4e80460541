"""A situation from its beginning to its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final

from tests.checks.forks import call
from tests.checks.shell import type_into_shell
from tests.checks.situation import TYPED, Act, Place, Situation
from tests.support.application import Application
from tests.support.daemon_process import environment, priorityd
from tests.support.database import Database
from tests.support.event_api import EVENT_KEY
from tests.support.faults import Faults
from tests.support.inngest_functions import SIGNING_KEY
from tests.support.plans import ATTENTIVE
from tests.support.secrecy import look, secrets_in
from tests.support.servers import start_servers
from tests.support.stack import Stack

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of the printed table."""

    situation: Situation
    finding: Json
    code: int
    good_after: bool


_AGAIN: Final = "If the publication was changed in the last minute, check again"
"""A subscription made before Realtime looks at the publication is dropped when it does."""


@asynccontextmanager
async def place_on(database: Database, directory: Path) -> AsyncIterator[Place]:
    """A good set-up: one tracked repository in a workspace, behind the stand-ins."""
    async with (
        start_servers(database.url, faults=Faults(), settings=ATTENTIVE) as server,
        AsyncExitStack() as opened,
    ):
        stack = Stack(server, database, Application(database.connect(), database.world))
        workspace, repository = stack.app.workspace(), stack.app.repository()
        stack.app.add(workspace, repository)
        settings: dict[str, Any] = {**stack.settings, "PRIORITYD_HTTP_PORT": 0}
        right = {
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": server.service_role_key,
            "SUPABASE_SECRET_KEY": server.secret_key,
            "PRIORITYD_GATEWAY_KEY": server.anon_key,
            "PRIORITYD_BATCH_SIZE": "500",
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
        }
        yield Place(stack, directory, opened, environment(**settings), right, repository, workspace)


async def run_in(place: Place, situation: Situation, forks: Path) -> Row:
    """Make it wrong, check, do what was said, check again. Raises `AssertionError`."""
    await _do(situation.wrong, place)
    code, report = await check(place, forks)
    finding = _finding(report, situation)
    assert code == situation.code, (code, report)
    assert situation.remedy in finding["remedy"], finding
    assert situation.command in finding["command"], finding
    assert report["ok"] == (situation.outcome != "failed"), report
    if situation.fix == TYPED:
        await type_into_shell(place, finding["command"])
    else:
        await _do(situation.fix, place)
    code_after, after = await check(place, forks)
    if any(each["remedy"].startswith(_AGAIN) for each in after["findings"]):
        code_after, after = await check(place, forks)
    bad = [each for each in after["findings"] if each["outcome"] in ("failed", "warning")]
    assert (code_after, bad) == (0, []), after
    if situation.after:
        await _do(situation.after, place)
    return Row(situation, finding, code, good_after=True)


async def check(place: Place, forks: Path) -> tuple[int, Json]:
    """Run `priorityd check --json`: its exit code and the report, with what holds of every report."""
    if "LD_PRELOAD" in place.environment:
        code, out, err = await priorityd("check", "--json", **place.environment)
    else:
        code, out, err = await call(forks, ["check", "--json"], place.environment, place.directory)
        look("the output of a command", out + err, secrets_in(place.environment))
    assert err == "", err
    report: Json = json.loads(out)
    assert report["findings"]
    assert report["verdict"]
    assert report["next"]
    for finding in report["findings"]:
        assert finding["text"], finding
        assert finding["outcome"] == "ok" or finding["remedy"], finding
    failed = [finding for finding in report["findings"] if finding["outcome"] == "failed"]
    assert report["ok"] == (not failed)
    assert code == (failed[0]["exit_code"] if failed else 0), report
    assert not failed or code != 0
    return code, report


def _finding(report: Json, situation: Situation) -> Json:
    found: list[Json] = [
        each
        for each in report["findings"]
        if (each["step"], each["outcome"]) == (situation.step, situation.outcome)
        and situation.says in each["text"]
    ]
    assert found, (situation.says, report)
    return found[0]


async def _do(act: Act, place: Place) -> None:
    result = act(place)
    if isawaitable(result):
        await result
