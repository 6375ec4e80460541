"""Points at which the stand-in can fail on request. `Faults` never fails; tests pass a subclass that does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from priorityd.daemon.sandbox.rest.errors import ApiError

Fault = Literal["silence", "refuse", "limit", "private", "deny", "withhold", "slotless", "disable"]
"""What fails:

- silence: changes are dropped;
- refuse, limit, private: joins are not answered, are too many, or are refused because the channel is public;
- deny, withhold: subscriptions are refused, or never start;
- slotless: there is no slot, though subscriptions start;
- disable: Realtime is switched off for the project.
"""


class Faults:
    """Asked before each step that may fail."""

    def is_on(self, fault: Fault, /) -> bool:  # noqa: ARG002 - for those who fail
        """Whether this fault is on now."""
        return False

    def events_per_second(self, usual: float, /) -> float:
        """The quota of changes now."""
        return usual

    def delays(self) -> list[float]:
        """Delays in seconds after which to send a change: one entry for each time to send it."""
        return [0.0]

    def rpc_failure(self, function: str, /) -> ApiError | None:  # noqa: ARG002 - as above
        """The error to answer instead of calling this function, None to call it."""
        return None
