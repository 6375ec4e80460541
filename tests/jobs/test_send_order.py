"""The order in which events leave while their priorities become known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from priorityd.core.inngest.outgoing_events import MAX_REQUEST_BYTES, OutgoingEvent, batches, size_bytes
from priorityd.core.jobs.send_order import SendOrder


def event(number: int, size: int = 0, *, urgent: bool = False) -> OutgoingEvent:
    return OutgoingEvent("test/event", {"number": number, "urgent": urgent, "text": "x" * size}, str(number))


def drain(order: SendOrder) -> list[list[OutgoingEvent]]:
    taken = []
    while batch := order.take():
        taken.append(list(batch))
    return taken


def test_what_is_not_urgent_waits_until_everything_is_known() -> None:
    order = SendOrder()
    others = [event(number, 10_000) for number in range(100)]
    for each in others:
        order.add(each, urgent=False)
    assert (list(order.take()), order.is_over) == ([], False)
    order.complete()
    assert [each for batch in drain(order) for each in batch] == others
    assert order.is_over


def test_what_is_urgent_leaves_as_soon_as_it_fills_a_request() -> None:
    order = SendOrder()
    order.add(event(1, MAX_REQUEST_BYTES // 2), urgent=True)
    assert not order.take()
    order.add(event(2, MAX_REQUEST_BYTES // 2), urgent=True)
    assert [each.id for each in order.take()] == ["1"]
    assert not order.take()


def test_an_event_larger_than_a_request_goes_alone() -> None:
    order = SendOrder()
    for number, size in enumerate([10, MAX_REQUEST_BYTES, 10]):
        order.add(event(number, size), urgent=False)
    order.complete()
    assert [[each.id for each in batch] for batch in drain(order)] == [["0"], ["1"], ["2"]]


def test_what_is_no_json_travels_along_for_the_sender_to_refuse() -> None:
    order = SendOrder()
    odd = OutgoingEvent("test/event", {"odd": object()}, "odd")
    order.add(odd, urgent=True)
    order.complete()
    assert list(order.take()) == [odd]


KNOWN = st.lists(
    st.tuples(st.booleans(), st.integers(0, MAX_REQUEST_BYTES // 3), st.booleans()), min_size=1, max_size=60
)


@given(KNOWN)
def test_everything_leaves_once_urgent_first_in_order_and_in_no_more_requests_than_needed(
    known: list[tuple[bool, int, bool]],
) -> None:
    order, taken, added = SendOrder(), [], []
    for number, (urgent, size, sender_is_free) in enumerate(known):
        added.append(event(number, size, urgent=urgent))
        order.add(added[-1], urgent=urgent)
        if sender_is_free:
            taken += drain(order)
    order.complete()
    taken += drain(order)
    expected = [each for each in added if each.data["urgent"]]
    expected += [each for each in added if not each.data["urgent"]]
    assert [each for batch in taken for each in batch] == expected
    assert [len(batch) for batch in taken] == [len(batch) for batch in batches(expected)]
    for batch in taken:
        assert len(batch) == 1 or sum(map(size_bytes, batch)) <= MAX_REQUEST_BYTES
