"""What a removal does not say is known from having seen the row come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.stream.hints import Hint, read_change
from priorityd.core.stream.membership_memory import MembershipMemory

A = UUID("11111111-1111-4111-8111-111111111111")
B = UUID("22222222-2222-4222-8222-222222222222")
AT = datetime(2026, 11, 24, 1, 57, 44, tzinfo=UTC)


def hint(operation: str, **sides: Any) -> Hint:
    return read_change(
        {"table": "workspace_repositories", "type": operation, "commit_timestamp": AT.isoformat(), **sides}
    )


def added(row: object, repository: UUID) -> Hint:
    return hint("INSERT", record={"id": row, "repository_id": str(repository)})


def removed(row: object) -> Hint:
    return hint("DELETE", old_record={"id": row})


def looked_at(memory: MembershipMemory, change: Hint) -> tuple[tuple[UUID, ...], bool]:
    completed = memory.complete(change)
    return completed.repository_ids, completed.needs_sweep


def test_a_removal_is_named_by_the_row_that_was_seen_and_only_once() -> None:
    memory = MembershipMemory()
    assert looked_at(memory, added("row", A)) == ((A,), False)
    assert looked_at(memory, removed("row")) == ((A,), False)
    assert looked_at(memory, removed("row")) == ((), True)


def test_a_row_that_was_not_seen_needs_a_sweep() -> None:
    assert looked_at(MembershipMemory(), removed("row")) == ((), True)
    assert looked_at(MembershipMemory(), hint("DELETE", old_record={})) == ((), True)


def test_a_moved_row_concerns_both_and_holds_the_new_one() -> None:
    memory = MembershipMemory()
    memory.complete(added(7, A))
    moved = hint("UPDATE", record={"id": 7, "repository_id": str(B)}, old_record={"id": 7})
    assert looked_at(memory, moved) == ((B, A), False)
    assert looked_at(memory, removed(7)) == ((B,), False)


def test_a_row_whose_new_side_is_not_told_needs_a_sweep_and_is_forgotten() -> None:
    memory = MembershipMemory()
    memory.complete(added("row", A))
    oversized = hint("UPDATE", record={"id": "row"}, old_record={"id": "row"})
    assert looked_at(memory, oversized) == ((A,), True)
    assert looked_at(memory, removed("row")) == ((), True)


def test_nothing_is_remembered_over_a_gap() -> None:
    memory = MembershipMemory()
    memory.complete(added("row", A))
    memory.clear()
    assert looked_at(memory, removed("row")) == ((), True)


def test_what_is_named_stays_as_it_is() -> None:
    memory = MembershipMemory()
    memory.complete(added("row", A))
    full = hint("DELETE", old_record={"id": "row", "repository_id": str(B)})
    assert looked_at(memory, full) == ((B,), False), (
        "what the change says counts more than what is remembered"
    )


ROWS = st.integers(0, 5)
CHANGES = st.lists(
    st.one_of(
        st.builds(added, ROWS, st.sampled_from([A, B])),
        st.builds(removed, ROWS),
        st.builds(
            lambda row, repository: hint(
                "UPDATE", record={"id": row, "repository_id": str(repository)}, old_record={"id": row}
            ),
            ROWS,
            st.sampled_from([A, B]),
        ),
    ),
    max_size=60,
)


@given(CHANGES)
def test_it_agrees_with_the_table_as_long_as_no_change_is_missed_and_is_bounded(changes: list[Hint]) -> None:
    memory, table = MembershipMemory(max_rows=3), dict[str, UUID]()
    for change in changes:
        assert change.membership_id is not None
        if change.operation == "INSERT" and change.membership_id in table:
            continue
        before = table.pop(change.membership_id, None)
        completed = memory.complete(change)
        if before is not None:
            assert completed.needs_sweep or before in completed.repository_ids
        if change.held_repository_id is not None:
            table[change.membership_id] = change.held_repository_id
            assert change.held_repository_id in completed.repository_ids
        assert len(memory) <= 3
