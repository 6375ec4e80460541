"""The documentation matches the code: settings, metrics, log events, exit codes, commands, functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from priorityd.core import __version__
from priorityd.core.errors import ExitCode
from priorityd.core.leader.lease import ASK_AFTER_SECONDS
from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.daemon.cli import cli
from priorityd.daemon.status.metrics import Metrics
from tests.project.log_events import Event, events, without_a_name
from tests.project.settings_reference import reference
from tests.support.database import Database
from tests.support.repository import DEPLOY, DOCS, ROOT

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *sorted(DOCS.glob("*.md")),
    *sorted(DEPLOY.glob("*.md")),
]


def page(name: str) -> str:
    """A page of `docs/`."""
    return (DOCS / f"{name}.md").read_text()


def test_the_readme_is_a_door_and_not_the_house() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_settings_are_listed_as_the_code_has_them() -> None:
    written = re.search(r"<!-- settings -->\n(.*?)<!-- end of settings -->", page("settings"), re.DOTALL)
    assert written
    assert written[1] == reference(), "python -m tests.project.settings_reference prints it"


def test_every_metric_is_listed_with_its_labels_and_no_other() -> None:
    table = page("metrics")[page("metrics").index("| metric (prefix") :]
    documented = {
        (name, tuple(labels.split(",")) if labels else ())
        for name, labels in re.findall(r"`([a-z_]+)(?:\{([a-z_,]+)\})?`", table)
        if name != "workspace_priority_"
    }
    exposed = set()
    for family in Metrics().registry.collect():
        name = family.name.removeprefix("workspace_priority_") + (
            "_total" if family.type == "counter" else ""
        )
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exposed.add((name, frozenset(labels)))
    assert {(name, frozenset(labels)) for name, labels in documented} == exposed


def test_every_log_event_is_listed_with_its_levels_and_fields_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([a-z ]+) \| (.*?) ?\| \S", page("log-events"), re.MULTILINE)
    documented = {
        event: Event(set(levels.split(" or ")), set(re.findall(r"`(\w+)`", fields)))
        for event, levels, fields in rows
    }
    assert len(documented) == len(rows)
    assert documented == events()


def test_a_log_event_is_named_as_a_noun_and_a_verb_in_the_past_tense() -> None:
    lifecycle = {"fatal", "started", "stopping", "stopped", "stalled"}
    odd = r"_(not|can|could|will|is|of|to|on|off)(_|$)"
    past = r"(ed|done|lost|held_back|given_up|unexpectedly)$"
    for event in events().keys() - lifecycle:
        assert re.search(past, event), event
        assert not re.search(odd, event), event


def test_every_event_about_a_repository_tells_its_name() -> None:
    # All that is known there is the id that the event names.
    assert without_a_name() == ["daemon/inngest/sync_function.py"]


def test_every_exit_code_is_listed_and_in_the_help() -> None:
    epilog = cli.epilog or ""
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", page("cli"), re.MULTILINE), code
        assert re.search(rf"^  {int(code)}\s", epilog, re.MULTILINE), code


def test_every_command_is_listed() -> None:
    for command in cli.commands:
        assert f"`priorityd {command}" in page("cli"), command


def test_every_public_function_is_listed_with_its_parameters_and_no_other(database: Database) -> None:
    rows = database.connect().execute(
        """select p.proname, coalesce(p.proargnames, '{}') from pg_proc p
           where p.pronamespace = 'public'::regnamespace
               and has_function_privilege('service_role', p.oid, 'execute')
               and not has_function_privilege('anon', p.oid, 'execute')"""
    )
    there = {f"{name}({', '.join(parameters)})" for name, parameters in rows}
    listed = re.findall(r"^\| `(\w+\([\w, ]*\))` \|", page("sql-functions"), re.MULTILINE)
    assert sorted(listed) == sorted(there)


def test_the_version_is_told_as_it_is() -> None:
    assert f"candidate {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    for path in ("docs/operations.md", "deploy/container/compose.yaml", "deploy/kubernetes/deployment.yaml"):
        named = re.findall(r"(?:priorityd:|VERSION=)([\w.]+\d)", (ROOT / path).read_text())
        assert set(named) == {__version__}, path


def test_how_often_the_heartbeat_row_is_written_is_told_as_it_is() -> None:
    told = re.compile(r"heartbeat row (?:is written|that this daemon writes) every ([\d.]+) s")
    for text in (page("how-it-works"), (DEPLOY / "runbook.md").read_text()):
        (seconds,) = told.findall(" ".join(text.split()))
        assert float(seconds) == ASK_AFTER_SECONDS


@pytest.mark.parametrize("path_of_page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_points_at_files_and_headings_that_exist(path_of_page: Path) -> None:
    text = path_of_page.read_text()
    for path in re.findall(r"`((?:core|daemon|docs|migrations|deploy|tests)/[\w./*]*)`", text):
        # X stands for any room.
        assert list(ROOT.glob(path.rstrip("/").replace("/X", "/*"))), path
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(text)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = path_of_page.parent / path if path else path_of_page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked.read_text()), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        reading = ahead.pop()
        reached.add(reading)
        text = reading.read_text()
        named = re.findall(r"(?:\]\(|`)([\w./-]+\.md)", text)
        linked = {root / path for path in named for root in (reading.parent, ROOT)}
        ahead += [
            each for each in {path.resolve() for path in linked} if each.exists() and each not in reached
        ]
    assert set(PAGES) <= reached


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_sql_and_python_use_the_same_words(database: Database) -> None:
    connection = database.connect()
    assert connection.execute("select priorityd.triggers()").fetchone() == (list(TRIGGERS),)
    labels = connection.execute("select unnest(enum_range(null::repository_priority))::text").fetchall()
    assert {label for (label,) in labels} == set(PRIORITIES)


def test_no_table_is_given_a_trigger(database: Database) -> None:
    # A workspace operation must never fail or wait because of priorities.
    triggers = database.connect().execute(
        "select tgname from pg_trigger"
        " where tgrelid = 'workspace_repositories'::regclass and not tgisinternal"
    )
    assert triggers.fetchall() == []
