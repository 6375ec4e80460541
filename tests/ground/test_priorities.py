"""The rules of priority, and their scores."""

from __future__ import annotations

from priorityd.core.priorities import LABELS, PRIORITIES, SCORES, Expected, expected, level, score


def test_the_rules_of_priority() -> None:
    assert expected(1, None) == Expected("high", is_workspace_repo=True, workspace_count=1)
    assert expected(3, "low") == Expected("high", is_workspace_repo=True, workspace_count=3)
    assert expected(0, None) == Expected("medium", is_workspace_repo=False, workspace_count=0)
    for manual in LABELS:
        assert expected(0, manual).priority == manual
    assert expected(1, "critical") == Expected("critical", is_workspace_repo=True, workspace_count=1)


def test_critical_counts_as_high_and_other_words_as_nothing() -> None:
    assert [level(label) for label in (*LABELS, "urgent", None)] == [
        "high", "high", "medium", "low", None, None
    ]  # fmt: skip


def test_scores_rank_priorities_and_an_unknown_one_is_medium() -> None:
    assert [score(priority) for priority in PRIORITIES] == [100, 50, 25]
    assert score(None) == SCORES["medium"]
