"""What makes Inngest obey a priority: the `priority.run` expression of the function that does the job.

Inngest starts the waiting runs of a function in the order of their arrival, moved forward by what this
expression yields: a whole number of seconds of head start. Facts that shape it, from Inngest's guide
"Priority", its open-source server (`Function.RunPriorityFactor`, `pkg/expressions`), and trials:

- The value must be a CEL int. Numbers in an event's JSON are doubles, so `event.data.priority` alone is
  accepted and silently has no effect: anything but an int, and every error, counts as 0. A comparison that
  chooses between two literals yields an int, and works on a double as well as on a word.
- The documented limits are -600 and 600. Beyond them the value is clamped.
- A negative value delays a run even when nothing else waits, so none is used: workspace repositories get the
  whole head start, all others none.
- Values of different types compare as different, without an error. A missing field is an error in standard
  CEL, though not in Inngest's own, and `has` avoids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import cel

from priorityd.core.priorities import DEFAULT_PRIORITY, PRIORITIES, SCORES, Priority

MAX_HEAD_START_SECONDS: Final = 600
"""The largest value that Inngest documents, on every plan."""

_FIELD: Final = "event.data.priority"


def head_start_seconds(priority: Priority) -> int:
    """The head start of a job of this priority, in seconds: proportional to its score above medium's."""
    above = SCORES[priority] - SCORES[DEFAULT_PRIORITY]
    largest = max(SCORES.values()) - SCORES[DEFAULT_PRIORITY]
    return max(0, above * MAX_HEAD_START_SECONDS // largest)


def run_priority_expression() -> str:
    """The recommended `priority.run`.

    It yields the same for an event with a score as for one with a word, and 0 for one without priority.
    """
    expression = "0"
    for priority in sorted(SCORES, key=SCORES.__getitem__):
        seconds = head_start_seconds(priority)
        if seconds:
            is_it = f"{_FIELD} == {SCORES[priority]} || {_FIELD} == '{priority}'"
            expression = f"has({_FIELD}) && ({is_it}) ? {seconds} : {expression}"
    return expression


def why_without_effect(expression: str, events: Mapping[Priority, Mapping[str, Any]]) -> str | None:
    """Why this expression does not start jobs by priority, or None if it does.

    `events` has one event for each priority, as it is sent, with its `data`.
    """
    try:
        seconds = [_evaluate(expression, events[priority]) for priority in PRIORITIES]
    except _NoNumberError as error:
        return str(error)
    if len(set(seconds)) == 1:
        return f"gives every job {seconds[0]}"
    if seconds != sorted(seconds, reverse=True):
        given = ", ".join(f"{one} for {priority}" for one, priority in zip(seconds, PRIORITIES, strict=True))
        return f"starts jobs of a lower priority first: it gives {given}"
    return None


class _NoNumberError(ValueError):
    """The expression yields no whole number; the text says what happens."""


def _evaluate(expression: str, event: Mapping[str, Any]) -> int:
    try:
        value = cel.evaluate(expression, {"event": _with_doubles(event)})
    except ValueError:
        raise _NoNumberError("is not a CEL expression that is understood here") from None
    except KeyError as error:
        raise _NoNumberError(f"reads {error}, which priorityd's events may lack") from None
    except Exception as error:  # noqa: BLE001 - a type for each kind of mistake in the expression
        raise _NoNumberError(f"fails: {str(error).splitlines()[0].strip():.80}") from None
    if type(value) is not int:
        kind = "decimal number" if isinstance(value, float) else type(value).__name__
        raise _NoNumberError(f"gives a {kind}, which counts as 0 for Inngest")
    return max(-MAX_HEAD_START_SECONDS, min(value, MAX_HEAD_START_SECONDS))


def _with_doubles(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_doubles(each) for key, each in value.items()}
    return float(value) if type(value) is int else value
