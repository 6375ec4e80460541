"""The head start that Inngest gives: our expression by the semantics of CEL, with JSON numbers as doubles."""

from __future__ import annotations

import json
from typing import Any, get_args
from uuid import uuid4

import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.run_priority import (
    MAX_HEAD_START_SECONDS,
    head_start_seconds,
    run_priority_expression,
    why_without_effect,
)
from priorityd.core.jobs.events import Job, LookUp, event_data
from priorityd.core.priorities import PRIORITIES, SCORES, Priority
from priorityd.core.vocabulary import PriorityForm
from tests.support.cel import evaluate, head_start

NAIVE = "event.data.priority"


def test_a_workspace_repository_gets_the_whole_head_start_and_nobody_is_held_back() -> None:
    seconds = {priority: head_start_seconds(priority) for priority in PRIORITIES}
    assert seconds == {"high": 600, "medium": 0, "low": 0}
    assert max(seconds.values()) == MAX_HEAD_START_SECONDS


@pytest.mark.parametrize("form", get_args(PriorityForm))
@pytest.mark.parametrize(
    ("look_up", "seconds"),
    [
        (RepositoryPriority("high", is_workspace_repo=True, workspace_count=1), 600),
        (RepositoryPriority("high", is_workspace_repo=False, workspace_count=0), 600),
        (RepositoryPriority("medium", is_workspace_repo=False, workspace_count=0), 0),
        (RepositoryPriority("low", is_workspace_repo=False, workspace_count=0), 0),
        ("untracked", 0),
        ("failed", 0),
    ],
)
def test_the_events_that_we_send_get_what_their_priority_deserves(
    look_up: LookUp, seconds: int, form: PriorityForm
) -> None:
    event = {"name": "any", "data": event_data(Job("reviews", uuid4()), look_up, form)}
    assert evaluate(run_priority_expression(), event) == ("INT", seconds)


@pytest.mark.parametrize(
    "data", [{}, {"priority": None}, {"priority": True}, {"priority": ["high"]}, {"priority": {"score": 100}}]
)
def test_an_event_without_priority_is_no_error_and_gets_no_head_start(data: dict[str, Any]) -> None:
    assert evaluate(run_priority_expression(), {"data": data}) == ("INT", 0)


@pytest.mark.parametrize("text", ["100", "100.0", "1e2"])
def test_a_score_counts_however_its_number_is_written(text: str) -> None:
    assert head_start(run_priority_expression(), json.loads(f'{{"data": {{"priority": {text}}}}}')) == 600


def test_the_expression_that_everybody_writes_first_has_no_effect() -> None:
    for score in SCORES.values():
        event = {"data": {"priority": score}}
        # A double, which Inngest silently takes for 0 ...
        assert evaluate(NAIVE, event) == ("DOUBLE", float(score))
        assert head_start(NAIVE, event) == 0
    # ... while ours, by the same library and the same event, is an int that counts.
    assert evaluate(run_priority_expression(), {"data": {"priority": 100}}) == ("INT", 600)


def test_what_inngest_takes_is_cut_at_its_limits() -> None:
    assert head_start("10000", {}) == 600
    assert head_start("-10000", {}) == -600
    assert head_start("nonsense(", {}) == 0


def event_with(priority: Priority, form: PriorityForm) -> dict[str, Any]:
    row = RepositoryPriority(priority, is_workspace_repo=priority == "high", workspace_count=1)
    return {"data": event_data(Job("reviews", uuid4()), row, form)}


def why(expression: str, form: PriorityForm = "score") -> str | None:
    return why_without_effect(expression, {each: event_with(each, form) for each in PRIORITIES})


def seconds(expression: str, form: PriorityForm = "score") -> list[int]:
    """What Inngest makes of it for high, medium and low."""
    return [head_start(expression, event_with(each, form)) for each in PRIORITIES]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (NAIVE, "gives a decimal number, which counts as 0 for Inngest"),
        (" (event.data['priority']) ", "gives a decimal number"),
        ("event.data.metadata.priorityScore * 6.0 - 300.0", "gives a decimal number"),
        ("has(event.data.priority) ? event.data.priority : 0", "gives a decimal number"),
        ("event.data.priority == 100 ? 600.0 : 0.0", "gives a decimal number"),
        ("event.data.metadata.priority", "gives a str"),
        ("event.data.priority * 6", "fails: Unsupported operation"),
        ("int(event.data.metadata.priority)", "fails: "),
        ("event.data.prioritty == 100 ? 600 : 0", "reads 'prioritty', which priorityd's events may lack"),
        ("event.priority == 100 ? 600 : 0", "reads 'priority'"),
        ("has(event.data.prioritty) ? 600 : 0", "gives every job 0"),
        ("event.data.priority == 100 ? 9000 : 600", "gives every job 600"),
        ("120", "gives every job 120"),
        ("nonsense(", "is not a CEL expression"),
        ("event.data.priority == 100 ? 0", "is not a CEL expression"),
    ],
)
def test_an_expression_without_effect_is_told_with_the_reason(expression: str, words: str) -> None:
    assert words in str(why(expression))
    # And it is true, by the reference implementation: there is no difference between priorities.
    assert len(set(seconds(expression))) == 1


@pytest.mark.parametrize(
    "expression",
    [
        "event.data.priority == 100 ? 0 : 600",
        "event.data.priority == 50 ? 600 : 0",
        "event.data.priority == 25 ? 10 : event.data.priority == 50 ? 0 : 600",
        "100 - int(event.data.priority)",
    ],
)
def test_swapped_values_are_told(expression: str) -> None:
    assert "starts jobs of a lower priority first: it gives " in str(why(expression))
    assert seconds(expression) != sorted(seconds(expression), reverse=True)


@pytest.mark.parametrize(
    ("form", "expression"),
    [
        ("score", "event.data.priority == 'high' ? 600 : 0"),
        ("score", 'event.data.priority != "low" ? 120 : 0'),
        ("score", "has(event.data.priority) && event.data.priority == 'high' ? 600 : 0"),
        ("word", "event.data.priority == 100 ? 600 : 0"),
        ("word", "int(event.data.priority)"),
        ("word", "event.data.priority >= 50 ? 600 : 0"),
        ("word", "int( event.data.priority ) * 6"),
    ],
)
def test_a_score_that_is_read_as_a_word_has_no_effect_nor_the_other_way_round(
    form: PriorityForm, expression: str
) -> None:
    other: PriorityForm = "word" if form == "score" else "score"
    assert why(expression, form)
    assert why(expression, other) is None
    assert len(set(seconds(expression, form))) == 1
    assert len(set(seconds(expression, other))) > 1


@pytest.mark.parametrize("form", get_args(PriorityForm))
@pytest.mark.parametrize(
    "expression",
    [
        run_priority_expression(),
        "event.data.priority == 'high' || event.data.priority == 100 ? 600 : 0",
        "event.data.metadata.priority == 'high' ? 600 : 0",
        "event.data.metadata.priorityScore == 100 ? 100 : 50",
        "event.data.metadata.isWorkspaceRepo ? 300 : -60",
        "int(event.data.metadata.priorityScore) * 6 - 300",
        "'high' == event.data.priority || 100 == event.data.priority ? 600 : 0",
        "!(event.data.metadata.priority in ['medium', 'low']) ? 600 : 0",
    ],
)
def test_what_works_is_suspected_for_neither_form(expression: str, form: PriorityForm) -> None:
    assert why(expression, form) is None
    high, medium, low = seconds(expression, form)
    assert high > low
    assert high >= medium >= low
