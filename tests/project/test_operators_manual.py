"""The operator's manual matches the code: endpoints, variables, files, and commands."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from priorityd.core.errors import ExitCode
from priorityd.daemon.settings import Settings, variable_name
from priorityd.daemon.status import http

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANUAL = (ROOT / "docs" / "operations.md").read_text()
PAGES = [
    path.read_text()
    for path in (ROOT / "docs").glob("*.md")
    if path.name != "check.md"  # which lists mistakes
]
UNIT = (DEPLOY / "systemd" / "priorityd.service").read_text()
REQUIREMENTS = DEPLOY / "container" / "requirements.txt"


def test_every_endpoint_is_explained() -> None:
    routes = re.findall(r'^ +"(/\w*)": self\._', inspect.getsource(http), re.MULTILINE)
    assert {"/", "/livez", "/readyz", "/status", "/metrics"} <= set(routes)
    for path in routes:
        assert f"| `{path}` |" in MANUAL, path


def test_every_variable_that_is_named_exists() -> None:
    known = {name for field in Settings.model_fields for name in variable_name(field).split(" or ")}
    named = set(re.findall(r"\b((?:SUPABASE|PRIORITYD|INNGEST)_[A-Z_]+)\b", "".join([UNIT, *PAGES])))
    # The second is a variable of Supabase's own.
    assert named - known == {"PRIORITYD_SECRETS_DIR", "SUPABASE_PUBLIC_URL"}


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(r"\b((?:deploy|migrations)/[\w./-]*)", MANUAL):
        if "/secrets" not in path:
            assert (ROOT / path.rstrip("./")).exists(), path


def test_nothing_is_left_out_of_the_source_distribution() -> None:
    assert '"deploy"' in (ROOT / "pyproject.toml").read_text()


def test_the_unit_gives_up_where_starting_again_cannot_help() -> None:
    final = {ExitCode.SCHEMA, ExitCode.KEY_REFUSED, ExitCode.CONFIGURATION}
    (line,) = re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT, re.MULTILINE)
    assert {int(code) for code in line.split()} == final


def test_the_unit_waits_longer_for_a_stop_than_the_daemon_takes() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(seconds) > Settings.model_fields["drain_seconds"].default


def pinned() -> dict[str, str]:
    """Name and version of what the image installs."""
    lines = re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def wanted(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_what_the_image_installs_is_what_the_project_needs() -> None:
    """Every dependency, and what those depend on, is pinned at a version that is allowed."""
    todo, seen = list(requires("workspace-priorityd") or []), set()
    pins = pinned()
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if name in seen or not wanted(requirement):
            continue
        seen.add(name)
        assert name in pins, f"{name} is not pinned: see the manual's command"
        assert requirement.specifier.contains(pins[name]), (
            f"{name}: {pins[name]} is not {requirement.specifier}"
        )
        todo += distribution(name).requires or []


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-build.txt"])
def test_every_pin_has_hashes_and_no_address(file: str) -> None:
    text = (DEPLOY / "container" / file).read_text()
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
