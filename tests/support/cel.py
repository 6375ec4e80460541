"""`priority.run` as Inngest evaluates it: CEL over the event's JSON, whose numbers are doubles.

The library wraps CEL's reference implementation in C++; Inngest uses the one in Go. The variable is declared
as there, as a map of strings to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

from priorityd.core.inngest.run_priority import MAX_HEAD_START_SECONDS

_ENVIRONMENT = cel.NewEnv(variables={"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})


def evaluate(expression: str, event: Mapping[str, object]) -> tuple[str, Any]:
    """CEL's name for the value's type, and the value. A runtime error is a value of the type ERROR."""
    value = _ENVIRONMENT.compile(expression).eval(data={"event": _with_doubles(event)})
    return value.type().name(), value.value()


def head_start(expression: str, event: Mapping[str, object]) -> int:
    """The head start that Inngest gives, within the documented limits: errors and non-integers count as 0."""
    try:
        kind, value = evaluate(expression, event)
    except RuntimeError:  # it does not compile
        return 0
    if kind != "INT":
        return 0
    return max(-MAX_HEAD_START_SECONDS, min(int(value), MAX_HEAD_START_SECONDS))


def _with_doubles(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_doubles(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_doubles(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
