"""The listener's states, and the function that decides the transitions between them.

                                                  ┌─ renewal ─┐
                                                  ▼           │
    connecting ──opened──▶ joining ──subscribed──▶ live ──beat overdue──▶ stale
        ▲                     │                     │                      │
        └──── retry time ── backing_off ◀── refused, closed, timed out ────┘

- *connecting*: the WebSocket handshake is under way.
- *joining*: the channel is being joined. The server's reply to the join (`SUBSCRIBED`) is not enough: rows
  flow only after the `system` message `extension=postgres_changes, status=ok`. Either may never arrive.
- *live*: the server says that rows flow. Each `system` ok, whether the first or a later one, means that there
  was a gap before it. It does not prove that there is a slot (Realtime v2.129.8 sends it while creating one
  fails, and while its poller sleeps); the first heartbeat row that comes back *confirms* the connection.
- *stale*: the connection looks healthy, but the daemon's heartbeat row did not come back through it.
- *backing_off*: waiting before the next attempt, longer after each failure, up to a limit, without giving up.
- *stopped*: final.

Renewal: a hosted connection without user authentication may be closed after 24 hours, and changes committed
between that and the next `system` ok are lost to the stream. So a successor is opened in time, beside the
live connection, and takes over when its own rows flow. The old connection is kept open for a while to deliver
what was committed before. A successor that fails changes nothing, and is retried later. A changed key
triggers a renewal at once, or a new attempt if nothing is live yet.

A failure is forgotten after `HEALTHY_AFTER_SECONDS` of being live. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

from priorityd.core.backoff import delay_after

State: TypeAlias = Literal["connecting", "joining", "live", "stale", "backing_off", "stopped"]
STATES: Final[tuple[State, ...]] = ("connecting", "joining", "live", "stale", "backing_off", "stopped")

CONNECT_TIMEOUT_SECONDS: Final = 10.0
JOIN_TIMEOUT_SECONDS: Final = 15.0
"""From the opened socket to the `system` ok; a cold server took up to 3.9 s."""
BACKOFF_BASE_SECONDS: Final = 0.5
BACKOFF_MAX_SECONDS: Final = 10.0
"""With the time-out of a join, this is the longest until changes are received again after an outage."""
HEALTHY_AFTER_SECONDS: Final = 60.0
RENEW_AFTER_SECONDS: Final = 23 * 3600.0
"""The age at which a live connection is renewed, minus up to a twentieth to spread daemons over time."""
RENEWAL_RETRY_SECONDS: Final = 300.0
"""The delay after a successor has failed; it leaves several attempts before the 24 hours are over."""

NO_BEAT: Final = "the heartbeat row did not come back"

ReconnectReason: TypeAlias = Literal[
    "connect_failed",
    "refused",
    "join_failed",
    "join_timeout",
    "subscription_error",
    "closed",
    "stale",
    "renewal",
]
RECONNECT_REASONS: Final[tuple[ReconnectReason, ...]] = (
    "connect_failed",  # no WebSocket: refused, DNS, TLS, time-out
    "refused",  # the handshake was answered with 401 or 403
    "join_failed",  # the join was answered with an error
    "join_timeout",  # no answer to the join, or no `system` ok
    "subscription_error",  # `system` error, e.g. a table outside the publication, or an expired token
    "closed",  # the server or the network closed the socket or the channel
    "stale",  # the heartbeat row did not come back
    "renewal",  # a successor has taken over, before the connection was too old
)


@dataclass(frozen=True, slots=True)
class Opened:
    """The WebSocket is open and the join is sent."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A `system` ok: rows flow from here on."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection, the join or the subscription failed or ended."""

    reason: ReconnectReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SuccessorSubscribed:
    """A `system` ok on the successor: its rows flow from here on."""


@dataclass(frozen=True, slots=True)
class SuccessorFailed:
    """The successor, its join or its subscription failed or ended."""

    failure: Failed


@dataclass(frozen=True, slots=True)
class BeatSeen:
    """The heartbeat row came back, so rows do flow."""


@dataclass(frozen=True, slots=True)
class BeatOverdue:
    """The heartbeat row did not come back in time."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed, so `ListenerState.deadline` may have been reached."""


@dataclass(frozen=True, slots=True)
class Renew:
    """The key has changed, so connections opened with the old one must be replaced."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon stops."""


Input: TypeAlias = (
    Opened
    | Subscribed
    | Failed
    | SuccessorSubscribed
    | SuccessorFailed
    | BeatSeen
    | BeatOverdue
    | Tick
    | Renew
    | Stop
)


class Action(Enum):
    """What the listener must do after a transition, in the order given."""

    OPEN = auto()
    """Open a WebSocket and join."""
    CLOSE = auto()
    """Close the socket and its successor, if any, and ignore whatever they still deliver."""
    OPEN_SUCCESSOR = auto()
    """Open another WebSocket beside the live one and join."""
    CLOSE_SUCCESSOR = auto()
    """Close the successor; the live connection stays."""
    PROMOTE_SUCCESSOR = auto()
    """Use the successor, and close the old connection when it has delivered what was committed before."""
    ASK_FOR_SWEEP = auto()
    """Request a sweep, because rows may have been missed."""


@dataclass(frozen=True, slots=True)
class ListenerState:
    """The listener's state. `deadline` is when a `Tick` matters next, None for never.

    `confirmed`: live, and a heartbeat row has come back. `renewing`: live, while a successor is being opened.
    `renew_after_seconds` is how old a live connection may get, and `backoff_max_seconds` the longest wait
    before another attempt.
    """

    name: State
    since: float
    deadline: float | None = None
    failures: int = 0
    last_failure: Failed | None = None
    confirmed: bool = False
    renewing: bool = False
    renew_after_seconds: float = RENEW_AFTER_SECONDS
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS


def initial(
    now: float,
    *,
    renew_after_seconds: float = RENEW_AFTER_SECONDS,
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS,
) -> tuple[ListenerState, list[Action]]:
    """The initial state and actions."""
    state = ListenerState(
        "connecting",
        now,
        renew_after_seconds=renew_after_seconds,
        backoff_max_seconds=backoff_max_seconds,
    )
    return _connecting(state, now)


def transition(
    state: ListenerState, event: Input, now: float, jitter: float
) -> tuple[ListenerState, list[Action]]:
    """The state after `event`, and the actions to take.

    `jitter` in [0, 1) spreads the back-off of many daemons. Events that do not apply to the state, such as a
    late answer on an abandoned connection, change nothing.
    """
    if isinstance(event, Stop):
        return ListenerState("stopped", now), [Action.CLOSE]
    match state.name, event:
        case "stopped", _:
            return state, []
        case "connecting", Opened():
            return replace(state, name="joining", since=now, deadline=now + JOIN_TIMEOUT_SECONDS), []
        case "joining", Subscribed():
            return _live(state, now, jitter), [Action.ASK_FOR_SWEEP]
        case "live", Subscribed():
            return state, [Action.ASK_FOR_SWEEP]
        case "live", BeatSeen() if not state.confirmed:
            return replace(state, confirmed=True), [Action.ASK_FOR_SWEEP]
        case "live", BeatOverdue():
            # The server answers, so a new connection is tried at once, without back-off. If that delivers
            # nothing either, it counts as a failure.
            if not state.confirmed:
                new, actions = _backing_off(state, Failed("stale", NO_BEAT), now, jitter)
                return new, [*actions, Action.ASK_FOR_SWEEP]
            new = replace(state, name="stale", since=now, deadline=now, confirmed=False, renewing=False)
            return new, [Action.CLOSE, Action.ASK_FOR_SWEEP]
        case "live", SuccessorSubscribed() if state.renewing:
            # Still confirmed: one slot feeds all connections, and the old one stays open for now.
            return _live(replace(state, failures=0), now, jitter), [Action.PROMOTE_SUCCESSOR]
        case "live", SuccessorFailed(failure) if state.renewing:
            return _renew_later(state, failure, now)
        case "live", Renew():
            new, actions = _renewing(state, now)
            return new, [Action.CLOSE_SUCCESSOR, *actions] if state.renewing else actions
        case _, Renew():
            new, actions = _connecting(state, now)
            return new, [Action.CLOSE, *actions]
        case "live", Failed():
            new, actions = _backing_off(state, event, now, jitter)
            return new, [*actions, Action.ASK_FOR_SWEEP]
        case (("connecting" | "joining"), Failed()):
            return _backing_off(state, event, now, jitter)
        case _, Tick() if state.deadline is not None and now >= state.deadline:
            return _timed_out(state, now, jitter)
        case _:
            return state, []


def _timed_out(state: ListenerState, now: float, jitter: float) -> tuple[ListenerState, list[Action]]:
    match state.name:
        case "live" if state.renewing:
            return _renew_later(state, Failed("join_timeout"), now)
        case "live":
            return _renewing(state, now)
        case "backing_off":
            return _connecting(state, now)
        case "stale":
            return _connecting(replace(state, last_failure=Failed("stale", NO_BEAT)), now)
        case "connecting":
            return _backing_off(state, Failed("connect_failed", "timed out"), now, jitter)
        case _:
            return _backing_off(state, Failed("join_timeout"), now, jitter)


def _live(state: ListenerState, now: float, jitter: float) -> ListenerState:
    deadline = now + state.renew_after_seconds * (1 - jitter / 20)
    return replace(state, name="live", since=now, deadline=deadline, renewing=False)


def _renewing(state: ListenerState, now: float) -> tuple[ListenerState, list[Action]]:
    deadline = now + CONNECT_TIMEOUT_SECONDS + JOIN_TIMEOUT_SECONDS
    return replace(state, renewing=True, deadline=deadline), [Action.OPEN_SUCCESSOR]


def _renew_later(state: ListenerState, failure: Failed, now: float) -> tuple[ListenerState, list[Action]]:
    deadline = now + min(RENEWAL_RETRY_SECONDS, state.renew_after_seconds)
    new = replace(state, renewing=False, deadline=deadline, last_failure=failure)
    return new, [Action.CLOSE_SUCCESSOR]


def _connecting(state: ListenerState, now: float) -> tuple[ListenerState, list[Action]]:
    # The margin lets the connection's own time-out fire first, because its error says more.
    deadline = now + CONNECT_TIMEOUT_SECONDS + 1.0
    return replace(state, name="connecting", since=now, deadline=deadline, confirmed=False), [Action.OPEN]


def _backing_off(
    state: ListenerState, failure: Failed, now: float, jitter: float
) -> tuple[ListenerState, list[Action]]:
    healthy = state.name == "live" and now - state.since >= HEALTHY_AFTER_SECONDS
    failures = 1 if healthy else state.failures + 1
    ceiling = delay_after(failures, BACKOFF_BASE_SECONDS, state.backoff_max_seconds)
    delay = ceiling * (0.5 + jitter / 2)
    new = replace(
        state,
        name="backing_off",
        since=now,
        deadline=now + delay,
        failures=failures,
        last_failure=failure,
        confirmed=False,
        renewing=False,
    )
    return new, [Action.CLOSE]
