"""What a change says, for changes as the real server sends them and for nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from realtime.types import RealtimePostgresChangesListenEvent as ListenEvent

from priorityd.core.stream.hints import Hint, MalformedChangeError, read_change

A = UUID("11111111-1111-4111-8111-111111111111")
B = UUID("22222222-2222-4222-8222-222222222222")
AT = "2026-11-24T01:57:44.083Z"


def change(table: str, operation: str, **sides: Any) -> dict[str, Any]:
    return {
        "table": table,
        "schema": "public",
        "type": operation,
        "commit_timestamp": AT,
        "errors": None,
        **sides,
    }


def test_an_added_membership_names_its_repository() -> None:
    hint = read_change(
        change("workspace_repositories", "INSERT", record={"id": "x", "repository_id": str(A)})
    )
    assert hint == Hint(
        "workspace_repositories",
        "INSERT",
        datetime(2026, 11, 24, 1, 57, 44, 83000, UTC),
        (A,),
        needs_sweep=False,
        membership_id="x",
        held_repository_id=A,
    )


def test_an_operation_is_its_word_whatever_type_the_client_gives_it() -> None:
    operation = read_change(change("workspace_repositories", ListenEvent.Insert, record={})).operation
    assert f"{operation}" == "INSERT", "it is a metric's label"


def test_a_removal_under_row_level_security_needs_a_sweep() -> None:
    hint = read_change(change("workspace_repositories", "DELETE", old_record={"id": "x"}))
    assert (hint.repository_ids, hint.needs_sweep) == ((), True)


def test_a_removal_with_full_replica_identity_names_its_repository() -> None:
    hint = read_change(change("workspace_repositories", "DELETE", old_record={"repository_id": str(A)}))
    assert (hint.repository_ids, hint.needs_sweep) == ((A,), False)


def test_a_moved_membership_concerns_both_repositories() -> None:
    both = change(
        "workspace_repositories",
        "UPDATE",
        record={"repository_id": str(A)},
        old_record={"repository_id": str(B)},
    )
    assert read_change(both).repository_ids == (A, B)
    new_only = change(
        "workspace_repositories", "UPDATE", record={"repository_id": str(A)}, old_record={"id": "x"}
    )
    assert (read_change(new_only).repository_ids, read_change(new_only).needs_sweep) == ((A,), True)


def test_a_row_too_large_to_be_sent_needs_a_sweep() -> None:
    cut = change("workspace_repositories", "INSERT", record={"id": "x"}) | {
        "errors": ["Error 413: Payload Too Large"]
    }
    assert read_change(cut).needs_sweep


def test_a_tracked_row_names_its_repository_once_it_has_one() -> None:
    assert read_change(
        change("tracked_repositories", "INSERT", record={"repository_id": str(A)})
    ).repository_ids == (A,)
    assert (
        read_change(change("tracked_repositories", "INSERT", record={"repository_id": None})).repository_ids
        == ()
    )


def test_a_heartbeat_tells_when_it_was_written() -> None:
    beat = change(
        "workspace_priority_heartbeats",
        "UPDATE",
        record={"daemon_id": str(A), "beat_at": "2026-11-24T01:00:00+00:00"},
    )
    assert read_change(beat).beat_at == datetime(2026, 11, 24, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        change("other", "INSERT"),
        change("workspace_repositories", "TRUNCATE"),
        change("workspace_repositories", "INSERT") | {"commit_timestamp": None},
        change("workspace_repositories", "INSERT") | {"commit_timestamp": "yesterday"},
        change("workspace_repositories", "INSERT") | {"type": 7},
    ],
)
def test_what_is_no_change_is_refused_by_name(broken: dict[str, Any]) -> None:
    with pytest.raises(MalformedChangeError, match=r"unexpected|commit_timestamp"):
        read_change(broken)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["table", "type", "commit_timestamp", "record", "old_record", "errors"])
NEARLY = st.dictionaries(FIELDS, JSON, max_size=6).map(
    lambda fields: change("workspace_repositories", "UPDATE", record={}, old_record={}) | fields
)


@given(NEARLY | st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_nonsense_is_refused_and_never_crashes(data: dict[str, Any]) -> None:
    try:
        hint = read_change(data)
    except MalformedChangeError:
        return
    assert hint.repository_ids or hint.needs_sweep or hint.table != "workspace_repositories"
