"""The dashboard is what its code makes, asks for what there is, and leaves nothing out."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from priorityd.daemon.metrics import PREFIX
from priorityd.daemon.status.metrics import Metrics
from tests.deploy.rules import GROUPS
from tests.support.repository import DEPLOY

BOARD = DEPLOY / "grafana" / "priorityd.json"
NAME = re.compile(rf"\b{PREFIX}[a-z_]+")
RECORDED = re.compile(r"\bworkspace_priority:[\w:]+")
PANELS = json.loads(BOARD.read_text())["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
RULES = [rule["expr"] for group in GROUPS for rule in group["rules"]]


def exposed() -> dict[str, set[str]]:
    """Every metric, as a query names it, with its labels."""
    found: dict[str, set[str]] = {}
    for family in Metrics().registry.collect():
        for sample in family.samples:
            name = sample.name
            if family.type == "histogram":
                name = family.name
            found.setdefault(name, set()).update(sample.labels)
    return found


def asked_for(expressions: list[str]) -> set[str]:
    names = {name for expression in expressions for name in NAME.findall(expression)}
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_the_json_is_what_the_code_makes() -> None:
    """Regenerate it with: python deploy/grafana/dashboard.py"""
    code: dict[str, Any] = runpy.run_path(str(DEPLOY / "grafana" / "dashboard.py"))
    assert BOARD.read_text() == code["build"]()


def test_everything_that_is_asked_for_is_exposed_and_nothing_is_exposed_that_nobody_looks_at() -> None:
    assert asked_for(QUERIES + RULES) == set(exposed())


def test_what_the_dashboard_asks_for_is_recorded() -> None:
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    wanted = {name for expression in QUERIES + RULES for name in RECORDED.findall(expression)}
    assert wanted <= recorded
    assert {name for expression in RULES for name in RECORDED.findall(expression)} == recorded


@pytest.mark.parametrize("expression", QUERIES + RULES)
def test_labels_are_those_of_the_metrics(expression: str) -> None:
    known = {label for name in asked_for([expression]) for label in exposed()[name]}
    matched = set(re.findall(r"[{,]\s*([a-z_]+)\s*(?:=|!=|=~|!~)", expression))
    grouped = {
        label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(",")
    }
    assert matched | grouped <= known | {"instance", "job", "le"}


def test_panels_lie_in_rows_without_overlapping() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == [
        "Correctness",
        "Speed",
        "Health",
        "Jobs by priority",
        "Ordered jobs",
        "Outbox",
    ]
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (place.get("x", 0) + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        targets = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(targets)) == len(targets)
        assert panel["type"] == "row" or (targets and panel["description"])


@pytest.mark.promtool
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    def filled(expression: str) -> str:
        return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")

    rules = [{"record": f"query:{n}", "expr": filled(each)} for n, each in enumerate(QUERIES)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
