"""What users are told is what there is: settings, metrics, exit codes, commands, vocabulary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from priorityd.core.errors import ExitCode
from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.daemon.cli import cli
from priorityd.daemon.settings import Settings, variable_name
from priorityd.daemon.status.metrics import Metrics
from tests.support.database import Database
from tests.support.repository import DEPLOY, DOCS, README, ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DEPLOY.glob("*.md")),
]


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_in_the_readme_with_its_default(field: str) -> None:
    names = variable_name(field).split(" or ")
    row = re.search(rf"^\| `{names[0]}`.*$", README, re.MULTILINE)
    assert row, f"{names[0]} is not in the table of settings"
    default = Settings.model_fields[field].default
    shown = "–" if default in (None, PydanticUndefined) else str(default).removesuffix(".0")
    assert shown in row[0].split("|")[2]


def test_every_setting_in_the_readme_exists() -> None:
    documented = set(re.findall(r"^\| `((?:PRIORITYD|SUPABASE|INNGEST)_[A-Z_]+)`", README, re.MULTILINE))
    assert documented == {variable_name(field).split(" or ")[0] for field in Settings.model_fields}


def test_every_metric_is_in_the_readme_with_its_labels_and_no_other() -> None:
    table = README[README.index("| metric (prefix") : README.index("## Glossary")]
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


def test_every_exit_code_is_in_the_readme_and_in_the_help() -> None:
    epilog = cli.epilog or ""
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", README, re.MULTILINE), code
        assert re.search(rf"^  {int(code)}\s", epilog, re.MULTILINE), code


def test_every_command_is_in_the_readme() -> None:
    for command in cli.commands:
        assert f"`priorityd {command}" in README, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_points_at_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:core|daemon|docs|migrations|deploy|tests)/[\w./*]*)`", text):
        # X stands for any room.
        assert list(ROOT.glob(path.rstrip("/").replace("/X", "/*"))), path
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(text)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked.read_text()), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        text = page.read_text()
        named = re.findall(r"(?:\]\(|`)([\w./-]+\.md)", text)
        linked = {root / path for path in named for root in (page.parent, ROOT)}
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
