"""Where the stand-in can fail on request. This one never does: a test serves it with one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from priorityd.daemon.sandbox.rest.errors import ApiError

Fault = Literal["silence", "refuse", "limit", "private", "deny", "withhold", "slotless", "disable"]
"""Changes are dropped; joins are not answered, or too many, or of public channels; subscriptions are refused,
or never begin; there is no slot, and subscriptions begin all the same; the project may not use Realtime."""


class Faults:
    """Asked before each step that may fail."""

    def is_on(self, fault: Fault, /) -> bool:  # noqa: ARG002 - for those who fail
        """Whether this is in force now."""
        return False

    def events_per_second(self, usual: float, /) -> float:
        """The quota of changes that counts now."""
        return usual

    def delays(self) -> list[float]:
        """When to send a change: one entry for each time that it is to be sent, in seconds from now."""
        return [0.0]

    def rpc_failure(self, function: str, /) -> ApiError | None:  # noqa: ARG002 - as above
        """What a call of this function is answered instead of being made."""
        return None
