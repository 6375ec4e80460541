"""Whatever happens in a step, there are words for it and something to do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from priorityd.core.errors import (
    ContractError,
    KeyRefusedError,
    MissingGrantError,
    NoWritesError,
    PermanentError,
    PriorityError,
    TransientError,
)
from priorityd.core.failures import REASONS, translate
from priorityd.daemon.cli.check.guard import from_call, guarded
from priorityd.daemon.cli.finding import Finding, psql

ERRORS: list[PriorityError] = [
    *(TransientError("words", reason=reason) for reason in REASONS),
    NoWritesError("it is full (53100); the database accepts no writes", reason="unavailable"),
    PermanentError("words", reason="rejected"),
    ContractError("words"),
    MissingGrantError("words", "grant select on a to b"),
    KeyRefusedError("words"),
]


async def failing(error: Exception) -> AsyncIterator[Finding]:
    yield Finding("first", "ok", "it is well")
    raise error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__} {error!s:.20}")
async def test_an_error_becomes_a_finding_with_a_remedy(error: PriorityError) -> None:
    first, second = [finding async for finding in guarded("step", failing(error))]
    assert (first.step, second.step, second.outcome) == ("first", "step", "failed")
    assert second.text
    assert second.remedy
    assert second.command
    assert second.exit_code != 0
    assert second == from_call("step", error)


@pytest.mark.parametrize(
    ("code", "message", "no_writes"),
    [("53100", "voll", True), ("25006", "nur lesbar", True), ("57P01", "it accepts no writes today", False)],
)
def test_what_accepts_no_writes_is_known_by_its_code(code: str, message: str, *, no_writes: bool) -> None:
    finding = from_call("step", translate(503, code, message))
    assert ("It is a standby" in finding.remedy) is no_writes


@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError(), ExceptionGroup("", [ValueError("x")])])
async def test_a_defect_is_told_and_nothing_else_is_lost(error: Exception) -> None:
    _, second = [finding async for finding in guarded("step", failing(error))]
    assert second.outcome == "failed"
    assert type(error).__name__ in second.text
    assert "report it" in second.remedy


def test_a_statement_reaches_psql_as_it_is() -> None:
    assert psql("select \"a\", $1, `b`, 'c\\d'") == (
        'psql "$DATABASE_URL" -c "select \\"a\\", \\$1, \\`b\\`, \'c\\\\d\'"'
    )
