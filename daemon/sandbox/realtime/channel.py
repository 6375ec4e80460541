"""One joined topic.

join ── bad token, or database unreachable ─▶ reply error after 5 s
  └─▶ reply ok ──▶ subscribing ── ok ─▶ `system` ok: changes flow ─┬─ new token ────────────────┐
                      ▲  ├── bad binding ─▶ `system` error, for good │                            │
                      │  └── no database ─▶ `system` error ─┐        │                            │
                      ├────── after 5 to 10 s ──────────────┘        │                            │
                      ├────── at once (no changes meanwhile) ────────┘ the publication changed    │
                      └────── after 1 to 3 s (changes still flow) ────────────────────────────────┘

A client that asks for presence gets an empty `presence_state` after the reply.

The channel ends with a leave, another join of the topic, a token that expires or is refused, or too many
messages (all with `phx_close`, while the socket stays open), or with its socket. Its subscription is removed
before anything else happens.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from psycopg import OperationalError

from priorityd.daemon.sandbox.keys import Claims, InvalidToken, Keys, is_opaque
from priorityd.daemon.sandbox.realtime.bindings import BadBinding, Binding
from priorityd.daemon.sandbox.realtime.protocol import to_json
from priorityd.daemon.sandbox.realtime.refusals import DATABASE_AWAY, after_join, at_expiry
from priorityd.daemon.sandbox.realtime.subscriptions import Interest, Subscription, Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.realtime.protocol import Framer
    from priorityd.daemon.sandbox.realtime.replication import Replication

_RETRY_SECONDS = (5.0, 10.0)
_RESUBSCRIBE_SECONDS = (1.0, 3.0)
# The event loop's clock and the wall clock may differ by milliseconds when a token expires.
_EXPIRY_MARGIN_SECONDS = 0.05
# From 2.129.8, `lib/realtime_web/channels/realtime_channel.ex`.
PRIVATE_ONLY = "PrivateOnly: This project only allows private channels"
_TOO_MANY_MESSAGES = "Too many messages per second"


class Channel:
    """A topic on one socket; `send` queues a frame and never waits."""

    def __init__(
        self,
        framer: Framer,
        bindings: list[Binding],
        token: str,
        claims: Claims,
        send: Callable[[str], None],
        faults: Faults,
        *,
        has_presence: bool,
        refusal_seconds: float,
    ) -> None:
        self._framer = framer
        self._bindings = bindings
        self._token = token
        self._claims = claims
        self._send = send
        self._faults = faults
        self._has_presence = has_presence
        self._refusal_seconds = refusal_seconds
        self._again = asyncio.Event()
        self._again_after: tuple[float, float] | None = None
        self._subscription: Subscription | None = None
        self._subscriptions: Subscriptions | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_over = False

    @property
    def join_ref(self) -> str | None:
        """The `join_ref` of its join."""
        return self._framer.join_ref

    def start(
        self,
        tasks: asyncio.TaskGroup,
        ref: str | None,
        subscriptions: Subscriptions,
        replication: Replication,
        old: Channel | None,
    ) -> None:
        """Answer the join (message `ref`) and subscribe, in one of these tasks, until the channel ends.

        `old` is the channel that this join replaces. Its client is told of its end after the reply, as in
        Phoenix.
        """
        self._subscriptions = subscriptions
        self._task = tasks.create_task(self._run(ref, subscriptions, replication, old))

    async def _run(
        self, ref: str | None, subscriptions: Subscriptions, replication: Replication, old: Channel | None
    ) -> None:
        if not await self._reachable(subscriptions):
            self._refuse(ref)
            return
        entries = ",".join(binding.reply() for binding in self._bindings)
        self._send(self._framer.reply(ref, "ok", f'{{"postgres_changes":[{entries}]}}'))
        if old is not None:
            old.say_closed()
        if self._has_presence:
            self._send(self._framer.push("presence_state", "{}"))
        await self._stay(subscriptions, replication)

    def drop(self) -> None:
        """End silently, and cancel whatever it was waiting for. Safe to repeat."""
        self.is_over = True
        if self._subscription is not None and self._subscriptions is not None:
            self._subscriptions.remove(self._subscription)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def say_closed(self) -> None:
        """Tell the client that the channel has ended."""
        self._send(self._framer.close())

    def leave(self, ref: str | None) -> None:
        """End because the client wants to."""
        self.drop()
        self._send(self._framer.reply(ref, "ok", "{}"))
        self.say_closed()

    def overrun(self) -> None:
        """End because of too many messages."""
        self._end_with(_TOO_MANY_MESSAGES)

    def change_token(self, token: object, keys: Keys) -> None:
        """Use a pushed access token; a bad one ends the channel. Keys that are not tokens are ignored."""
        if not isinstance(token, str) or token == self._token or is_opaque(token):
            return
        try:
            self._claims = keys.verify(token)
        except InvalidToken as flaw:
            self._end_with(after_join(flaw))
            return
        self._token = token
        self._subscribe_again(_RESUBSCRIBE_SECONDS)

    def renew(self) -> None:
        """Subscribe again, and notify the client."""
        self._subscribe_again(None)

    def _subscribe_again(self, after: tuple[float, float] | None) -> None:
        self._again_after = after
        self._again.set()

    async def _reachable(self, subscriptions: Subscriptions) -> bool:
        started = time.monotonic()
        if await subscriptions.database_is_reachable():
            return True
        await asyncio.sleep(max(0.0, started + self._refusal_seconds - time.monotonic()))
        return False

    def _refuse(self, ref: str | None) -> None:
        self.drop()
        reason = "UnableToConnectToProject: Realtime was unable to connect to the project database"
        self._send(self._framer.reply(ref, "error", to_json({"reason": reason})))

    async def _stay(self, subscriptions: Subscriptions, replication: Replication) -> None:
        while not self.is_over:
            self._again.clear()
            try:
                async with asyncio.timeout(self._claims.expires_at - time.time() + _EXPIRY_MARGIN_SECONDS):
                    if self._bindings:
                        await self._subscribe(subscriptions, replication)
                    await self._again.wait()
                    if self._again_after is not None:
                        await asyncio.sleep(random.uniform(*self._again_after))  # noqa: S311 - jitter
            except TimeoutError:
                if self._claims.expires_at <= time.time():
                    self._end_with(at_expiry(self._claims.expires_at))

    async def _subscribe(self, subscriptions: Subscriptions, replication: Replication) -> None:
        """Try until it succeeds, fails for good, or is to be started over."""
        if self._faults.is_on("withhold"):
            return
        while not self._again.is_set():
            try:
                await replication.live()
                interests = await self._check(subscriptions)
            except BadBinding as error:
                self._say_refused(str(error))
                return
            except OperationalError:
                self._say_refused(DATABASE_AWAY)
                await self._pause(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - jitter
            else:
                # Nothing is awaited from here on, so that no change can overtake the ok.
                self._replace(Subscription(self._claims, interests, self._deliver, self.renew), subscriptions)
                self._say_subscribed()
                return

    async def _check(self, subscriptions: Subscriptions) -> tuple[Interest, ...]:
        if self._faults.is_on("deny"):
            raise BadBinding("Unable to subscribe to changes with given parameters.")
        return await subscriptions.check(self._bindings, self._claims)

    def _say_subscribed(self) -> None:
        self._send(self._framer.system("postgres_changes", "ok", "Subscribed to PostgreSQL"))

    def _say_refused(self, message: str) -> None:
        self._send(self._framer.system("postgres_changes", "error", message))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._again.wait()
        except TimeoutError:
            return

    def _replace(self, subscription: Subscription, subscriptions: Subscriptions) -> None:
        if self._subscription is not None:
            subscriptions.remove(self._subscription)
        self._subscription = subscription
        subscriptions.activate(subscription)

    def _deliver(self, data: str, ids: list[int]) -> None:
        frame = self._framer.push("postgres_changes", f'{{"data":{data},"ids":{to_json(ids)}}}')
        for delay in self._faults.delays():
            if delay > 0:
                asyncio.get_running_loop().call_later(delay, self._send_late, frame)
            else:
                self._send(frame)

    def _send_late(self, frame: str) -> None:
        if not self.is_over:
            self._send(frame)

    def _end_with(self, message: str) -> None:
        self.drop()
        self._send(self._framer.system("system", "error", message))
        self.say_closed()
