"""The head start that Inngest gives: our expression by the semantics of CEL, with JSON numbers as doubles."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.inngest.run_priority import (
    MAX_HEAD_START_SECONDS,
    has_no_effect,
    head_start_seconds,
    run_priority_expression,
)
from priorityd.core.jobs.events import Job, LookUp, event_data
from priorityd.core.priorities import PRIORITIES, SCORES, Priority
from priorityd.core.vocabulary import PRIORITY_FORMS, PriorityForm
from tests.support.cel import evaluate, head_start

NAIVE = "event.data.priority"


def test_a_workspace_repository_gets_the_whole_head_start_and_nobody_is_held_back() -> None:
    seconds = {priority: head_start_seconds(priority) for priority in PRIORITIES}
    assert seconds == {"high": 600, "medium": 0, "low": 0}
    assert max(seconds.values()) == MAX_HEAD_START_SECONDS


@pytest.mark.parametrize("form", PRIORITY_FORMS)
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
def test_an_event_without_priority_is_no_error_and_gets_no_head_start(data: dict[str, object]) -> None:
    assert evaluate(run_priority_expression(), {"data": data}) == ("INT", 0)


@pytest.mark.parametrize("text", ["100", "100.0", "1e2"])
def test_a_score_counts_however_its_number_is_written(text: str) -> None:
    assert head_start(run_priority_expression(), json.loads(f'{{"data": {{"priority": {text}}}}}')) == 600


def test_the_expression_that_everybody_writes_first_has_no_effect() -> None:
    for score in SCORES.values():
        event = {"data": {"priority": score}}
        # A double, which Inngest takes for 0 without a word ...
        assert evaluate(NAIVE, event) == ("DOUBLE", float(score))
        assert head_start(NAIVE, event) == 0
    # ... while ours, by the same library and the same event, is an int that counts.
    assert evaluate(run_priority_expression(), {"data": {"priority": 100}}) == ("INT", 600)


def test_what_inngest_takes_is_cut_at_its_limits() -> None:
    assert head_start("10000", {}) == 600
    assert head_start("-10000", {}) == -600
    assert head_start("nonsense(", {}) == 0


NO_EFFECT = [
    NAIVE,
    " event.data.priority ",
    "(event.data.priority)",
    "event.data['priority']",
    'event.data["priority"]',
    "event.data.metadata.priorityScore",
    "event.data.priority * 6",
    "event.data.priority * 6.0 - 300.0",
    "-event.data.priority",
    "event.data.priority + 1",
]


@pytest.mark.parametrize("expression", NO_EFFECT)
def test_an_expression_without_effect_is_recognised(expression: str) -> None:
    assert has_no_effect(expression)
    # And it is true: there is no effect, for a score or for a word.
    for priority in (100, 25, "high"):
        event = {"data": {"priority": priority, "metadata": {"priorityScore": priority}}}
        assert head_start(expression, event) == 0


def event_with(priority: Priority, form: PriorityForm) -> dict[str, object]:
    row = RepositoryPriority(priority, is_workspace_repo=priority == "high", workspace_count=1)
    return {"data": event_data(Job("reviews", uuid4()), row, form)}


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
    assert has_no_effect(expression, form)
    assert not has_no_effect(expression, other)
    seconds = {
        each: {head_start(expression, event_with(priority, each)) for priority in PRIORITIES}
        for each in PRIORITY_FORMS
    }
    assert len(seconds[form]) == 1
    assert len(seconds[other]) > 1


@pytest.mark.parametrize("form", PRIORITY_FORMS)
@pytest.mark.parametrize(
    "expression",
    [
        run_priority_expression(),
        "event.data.priority == 'high' || event.data.priority == 100 ? 600 : 0",
        "event.data.metadata.priority == 'high' ? 600 : 0",
        "event.data.metadata.priorityScore == 100 ? 600 : 0",
        "'high' == event.data.priority || 100 == event.data.priority ? 600 : 0",
    ],
)
def test_what_works_for_both_forms_is_suspected_for_neither(expression: str, form: PriorityForm) -> None:
    assert not has_no_effect(expression, form)
    assert head_start(expression, event_with("high", form)) == 600
    assert head_start(expression, event_with("medium", form)) == 0


@pytest.mark.parametrize(
    "expression",
    [
        run_priority_expression(),
        "int(event.data.priority)",
        "event.data.priority == 100 ? 100 : 50",
        "event.data.priority > 60 ? 120 : 0",
        "size(event.data.names)",
        "event.data.names.size()",
        "120",
    ],
)
def test_no_expression_with_an_effect_is_suspected(expression: str) -> None:
    assert not has_no_effect(expression)
    event = {"data": {"priority": 100, "names": ["a", "b"]}}
    assert head_start(expression, event) > 0
