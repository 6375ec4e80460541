"""A server that sends nonsense between what it should send: the listener goes on hearing what is true."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve

from core.events import Hint
from core.priorities import Trigger
from daemon.clock import utc_now
from daemon.keyring import Keyring
from daemon.listener import Listener
from daemon.metrics import Metrics
from daemon.progress import Progress
from daemon.rows import Beat
from tests.acceptance.daemon_process import eventually

TOPIC = "realtime:priorityd"
FRAMES = 400


class Heartbeats:
    """A database of nothing but heartbeats, which this server never sends back."""

    async def beat(self, daemon_id: UUID) -> Beat:
        return Beat(beat_at=utc_now())


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON."""
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind < 6:
        texts = [
            "",
            "ok",
            "error",
            "INSERT",
            "\u0000",
            "x" * rng.choice([10, 70_000]),
            "2026-11-24T01:57:44.083Z",
        ]
        return rng.choice([None, True, -1, 2**70, 1.5e300, rng.choice(texts), str(uuid4())])
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    names = ["data", "ids", "record", "table", "type", "status", "response", "commit_timestamp", "message"]
    return {rng.choice(names): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def nonsense(rng: random.Random, real: str) -> str | bytes:
    """A frame that no server should send."""
    events = [
        "postgres_changes",
        "system",
        "phx_reply",
        "presence_state",
        "presence_diff",
        "broadcast",
        "new",
    ]
    frame = {"event": rng.choice(events), "topic": rng.choice([TOPIC, "phoenix", "realtime:other", ""])}
    frame |= {"payload": value(rng), "ref": rng.choice([None, "1", 7, "999"])}
    match rng.randrange(6):
        case 0:
            return real[: rng.randrange(len(real))]
        case 1:
            return rng.randbytes(rng.randrange(60))
        case 2:
            return json.dumps(value(rng))
        case 3:
            changed = json.loads(real)
            changed["payload"]["data"][rng.choice(list(changed["payload"]["data"]))] = value(rng)
            return json.dumps(changed)
        case _:
            return json.dumps(frame)


def change(repository_id: UUID, ids: list[int]) -> str:
    data = {
        "schema": "public",
        "table": "workspace_repositories",
        "type": "INSERT",
        "commit_timestamp": "2026-11-24T01:57:44.083Z",
        "errors": None,
        "columns": [],
        "record": {"repository_id": str(repository_id)},
    }
    return json.dumps(
        {"event": "postgres_changes", "topic": TOPIC, "ref": None, "payload": {"data": data, "ids": ids}}
    )


@asynccontextmanager
async def server_that_sends(rng: random.Random, wanted: UUID) -> AsyncIterator[str]:
    async def handle(connection: ServerConnection) -> None:
        async for text in connection:
            message = json.loads(text)
            if message["event"] != "phx_join":
                continue
            bindings = message["payload"]["config"]["postgres_changes"]
            with_ids = [binding | {"id": number} for number, binding in enumerate(bindings, 1)]
            ok = {"status": "ok", "response": {"postgres_changes": with_ids}}
            live = {
                "channel": "priorityd",
                "extension": "postgres_changes",
                "message": "Subscribed to PostgreSQL",
                "status": "ok",
            }
            for event, payload, ref in (("phx_reply", ok, message["ref"]), ("system", live, None)):
                await connection.send(
                    json.dumps({"event": event, "topic": TOPIC, "payload": payload, "ref": ref})
                )
            for _ in range(FRAMES):
                await connection.send(nonsense(rng, change(uuid4(), [1])))
            await connection.send(change(wanted, [1]))

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("seed", range(8))
async def test_nonsense_neither_ends_the_listener_nor_makes_it_deaf(seed: int) -> None:
    hints: list[Hint] = []
    gaps: list[Trigger] = []
    wanted, metrics = uuid4(), Metrics()
    async with server_that_sends(random.Random(seed), wanted) as url, anyio.create_task_group() as tasks:
        listener = Listener(
            url,
            Keyring("key"),
            uuid4(),
            Heartbeats(),
            on_hint=hints.append,
            on_gap=gaps.append,
            metrics=metrics,
            progress=Progress(),
            beat_interval_seconds=2.0,
            beat_grace_seconds=1.0,
        )
        tasks.start_soon(listener.run)
        await eventually(lambda: any(hint.repository_ids == (wanted,) for hint in hints), 30)
        assert (
            metrics.registry.get_sample_value("workspace_priority_malformed_events_total") or 0
        ) > FRAMES / 5
        assert "event" in gaps, "what could not be read may have been a change"
        listener.stop()
