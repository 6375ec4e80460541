"""What users are told is what there is: settings, metrics, exit codes, commands, vocabulary."""

from __future__ import annotations

import re

import pytest
from pydantic_core import PydanticUndefined

from priorityd.core.errors import ExitCode
from priorityd.core.priorities import PRIORITIES, TRIGGERS
from priorityd.daemon.cli import cli
from priorityd.daemon.settings import Settings, variable_name
from priorityd.daemon.status.metrics import Metrics
from tests.support.database import Database
from tests.support.repository import README, ROOT


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


def test_the_readme_points_at_files_that_exist() -> None:
    for path in re.findall(r"`((?:core|daemon|migrations|deploy|tests)/[\w./*]*)`", README):
        assert list(ROOT.glob(path.rstrip("/"))), path


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
