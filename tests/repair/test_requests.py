"""PendingRuns that come while the work is under way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from priorityd.core.repair.pending_runs import PendingRun, PendingRuns

T0 = datetime(2025, 1, 3, tzinfo=UTC)


def test_requests_during_a_run_become_one() -> None:
    requests = PendingRuns()
    requests.add("signal")
    assert requests.take() == PendingRun("signal")
    assert not requests
    requests.add("signal", T0 + timedelta(seconds=1))
    requests.add("event", T0)
    requests.add("event")
    assert requests.take() == PendingRun("signal", T0)
    assert requests.take() is None


def test_a_failed_request_waits_ahead_of_what_came_meanwhile() -> None:
    requests = PendingRuns()
    requests.add("event", T0)
    requests.put_back(PendingRun("reconnect", T0 + timedelta(seconds=1)))
    assert requests.take() == PendingRun("reconnect", T0)
