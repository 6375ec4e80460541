"""One joined topic.

join ── database unreachable ─▶ reply error after 5 s
   └─▶ reply ok, `presence_state` ──▶ subscribing ── ok ─▶ `system` ok: changes flow ── new token ─┐
                                        ▲  └─ bad binding ─▶ `system` error ─┐                      │
                                        ├──────── after 5 to 10 s ───────────┘                      │
                                        └──────── after 1 to 3 s (changes still flow) ──────────────┘

The channel ends by a leave, another join of the topic, a token that expires or is refused, or too many
messages (all with `phx_close`; the socket stays open), or with its socket. Its subscription is gone before
anything else happens.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import TYPE_CHECKING

from psycopg import OperationalError

from priorityd.daemon.sandbox.keys import Claims, Flaw, InvalidToken, Keys, is_opaque
from priorityd.daemon.sandbox.realtime.bindings import BadBinding, Binding
from priorityd.daemon.sandbox.realtime.protocol import to_json
from priorityd.daemon.sandbox.realtime.subscriptions import Interest, Subscription, Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from priorityd.daemon.sandbox.faults import Faults
    from priorityd.daemon.sandbox.realtime.protocol import Framer
    from priorityd.daemon.sandbox.realtime.replication import Replication

_UNREACHABLE_SECONDS = 5.0
_RETRY_SECONDS = (5.0, 10.0)
_RESUBSCRIBE_SECONDS = (1.0, 3.0)
# The event loop's clock and the wall clock need not agree to the millisecond about when a token has expired.
_EXPIRY_MARGIN_SECONDS = 0.05
# The words of Realtime 2.28.40; its newer versions also end the socket after the first of them.
TOO_MANY_JOINS = "ClientJoinRateLimitReached: Too many joins per second"
# Of 2.129.8, `lib/realtime_web/channels/realtime_channel.ex`.
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
    ) -> None:
        self._framer = framer
        self._bindings = bindings
        self._token = token
        self._claims = claims
        self._send = send
        self._faults = faults
        self._token_changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._subscriptions: Subscriptions | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_over = False

    @property
    def join_ref(self) -> str | None:
        """The `join_ref` of the join that made it."""
        return self._framer.join_ref

    def start(
        self,
        tasks: asyncio.TaskGroup,
        ref: str | None,
        subscriptions: Subscriptions,
        replication: Replication,
        old: Channel | None,
    ) -> None:
        """Answer the join (message `ref`), then subscribe, in a task of these until the channel is over.

        `old` is the channel that this join displaces; it learns of its end after the reply, as in Phoenix.
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
        self._send(self._framer.push("presence_state", "{}"))
        await self._stay(subscriptions, replication)

    def drop(self) -> None:
        """End without a word: nothing of it goes on, whatever it was waiting for. Safe to repeat."""
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
        """Take a pushed access token; a bad one ends the channel. New-style keys are no tokens: ignored."""
        if not isinstance(token, str) or token == self._token or is_opaque(token):
            return
        try:
            self._claims = keys.verify(token)
        except InvalidToken as flaw:
            self._end_with(f"Received an invalid access token from client: {_in_elixir(flaw)}")
            return
        self._token = token
        self._token_changed.set()

    async def _reachable(self, subscriptions: Subscriptions) -> bool:
        started = time.monotonic()
        if await subscriptions.database_is_reachable():
            return True
        await asyncio.sleep(max(0.0, started + _UNREACHABLE_SECONDS - time.monotonic()))
        return False

    def _refuse(self, ref: str | None) -> None:
        self.drop()
        reason = "UnableToConnectToProject: Realtime was unable to connect to the project database"
        self._send(self._framer.reply(ref, "error", to_json({"reason": reason})))

    async def _stay(self, subscriptions: Subscriptions, replication: Replication) -> None:
        while not self.is_over:
            self._token_changed.clear()
            try:
                async with asyncio.timeout(self._claims.expires_at - time.time() + _EXPIRY_MARGIN_SECONDS):
                    if self._bindings:
                        await self._subscribe(subscriptions, replication)
                    await self._token_changed.wait()
                    await asyncio.sleep(random.uniform(*_RESUBSCRIBE_SECONDS))  # noqa: S311 - jitter
            except TimeoutError:
                if self._claims.expires_at <= time.time():
                    flaw = InvalidToken(Flaw.EXPIRED, self._claims.expires_at)
                    self._end_with(f"Access token has expired: {_in_elixir(flaw)}")

    async def _subscribe(self, subscriptions: Subscriptions, replication: Replication) -> None:
        """Try until it works or there is a new token to try with."""
        if self._faults.is_on("withhold"):
            return
        while not self._token_changed.is_set():
            try:
                await replication.live()
                interests = await self._check(subscriptions)
            except (BadBinding, OperationalError) as error:
                message = f"{{:error, {json.dumps(str(error), ensure_ascii=False)}}}"
                self._send(self._framer.system("postgres_changes", "error", message))
                await self._pause(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - jitter
            else:
                # From here to the end without waiting: nothing may come between the ok and the changes.
                subscription = Subscription(self._claims, interests, self._deliver, self._say_subscribed)
                self._replace(subscription, subscriptions)
                self._say_subscribed()
                return

    async def _check(self, subscriptions: Subscriptions) -> tuple[Interest, ...]:
        if self._faults.is_on("deny"):
            raise BadBinding("Unable to subscribe to changes with given parameters.")
        return await subscriptions.check(self._bindings, self._claims)

    def _say_subscribed(self) -> None:
        self._send(self._framer.system("postgres_changes", "ok", "Subscribed to PostgreSQL"))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._token_changed.wait()
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


def _in_elixir(flaw: InvalidToken) -> str:
    """A token's flaw as Realtime inspects it."""
    match flaw.flaw:
        case Flaw.SIGNATURE:
            return ":signature_error"
        case Flaw.EXPIRED:
            return f'[message: "Invalid token", claim: "exp", claim_val: {flaw.expires_at}]'
        case Flaw.CLAIMS:
            return '"Fields `role` and `exp` are required in JWT"'
        case Flaw.MALFORMED:
            return ":expected_claims_map"


def join_refusal(flaw: InvalidToken) -> str:
    """The reason in the reply to a join with a bad token."""
    match flaw.flaw:
        case Flaw.SIGNATURE:
            return "signature_error"
        case Flaw.EXPIRED:
            return "Invalid JWT Token"
        case Flaw.CLAIMS:
            return "Fields `role` and `exp` are required in JWT"
        case Flaw.MALFORMED:
            return "expected_claims_map"
