"""A stand-in for the side of Inngest that outbound workers talk to, for tests. It is not Inngest.

It speaks the worker's protocol: `POST /v0/connect/start`, then a WebSocket with protobuf messages. Source:
Inngest's open-source server, `pkg/connect/rest/v0/workerapi.go`, `pkg/connect/gateway.go` and
`proto/connect/v1/connect.proto`; the messages are those that the SDK was generated from.

- start: without development mode the `Authorization` header must hold the hashed signing key, else 401. The
  answer has a connection id, the gateway's address and two tokens.
- WebSocket, subprotocol `v0.connect.inngest.com`: GATEWAY_HELLO; within 5 s WORKER_CONNECT with that
  connection id, an instance id, the tokens and at least one app, else it is closed with 1008;
  GATEWAY_CONNECTION_READY.
- WORKER_HEARTBEAT is answered; an execution is GATEWAY_EXECUTOR_REQUEST, WORKER_REQUEST_ACK, WORKER_REPLY,
  WORKER_REPLY_ACK. A worker that sent WORKER_PAUSE gets no more of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio

from tests.support.event_api import serve_asgi

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, about the SDK
    from inngest.connect._internal import connect_pb2

pb = connect_pb2

SUBPROTOCOL = "v0.connect.inngest.com"
SIGNING_KEY = "signkey-test-0123456789abcdef"


def hashed(signing_key: str) -> str:
    """What the SDK sends instead of a signing key."""
    return hashlib.sha256(bytes.fromhex(signing_key.rpartition("-")[2])).hexdigest()


@dataclass(frozen=True)
class Reply:
    """How an execution ended: the worker's status, its output, and whether retrying is pointless."""

    status: str
    output: Any
    no_retry: bool


@dataclass(eq=False)
class Worker:
    """A worker that has finished the handshake."""

    instance_id: str
    functions: list[dict[str, Any]]
    send: Any
    paused: bool = False
    heartbeats: int = 0
    replies: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    async def tell(self, kind: int, payload: bytes = b"") -> None:
        message = pb.ConnectMessage(kind=kind, payload=payload)  # type: ignore[arg-type]
        await self.send({"type": "websocket.send", "bytes": message.SerializeToString()})


class ConnectGateway:
    """The API's start request and the gateway, in one ASGI application. `signing_key` None is dev mode."""

    def __init__(self, signing_key: str | None = SIGNING_KEY) -> None:
        self.signing_key = signing_key
        self.url = ""
        self.workers: list[Worker] = []
        self.starts = 0
        self.refused: list[str] = []
        self.start_status = 200
        self.silent = False
        self._connections: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._start(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve(scope, receive, send)

    def ready(self) -> list[Worker]:
        """The workers that accept executions."""
        return [worker for worker in self.workers if not worker.paused]

    async def run(self, data: Mapping[str, object], attempt: int = 0) -> Reply:
        """Execute the function for an event with this data, once."""
        worker = self.ready()[0]
        event = {
            "name": "workspace/priorities.sync",
            "data": data,
            "id": uuid4().hex,
            "ts": 1_700_000_000_000,
        }
        context = {"attempt": attempt, "disable_immediate_execution": False, "run_id": uuid4().hex}
        request = {
            "ctx": context | {"stack": {"stack": []}},
            "event": event,
            "events": [event],
            "steps": {},
            "use_api": False,
        }
        execution = pb.GatewayExecutorRequestData(
            request_id=uuid4().hex,
            account_id=str(uuid4()),
            env_id=str(uuid4()),
            app_id=str(uuid4()),
            app_name="priorityd",
            function_id=str(uuid4()),
            function_slug=worker.functions[0]["id"],
            step_id="step",
            request_payload=json.dumps(request).encode(),
            run_id=context["run_id"],  # type: ignore[arg-type]
            lease_id=uuid4().hex,
        )
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        worker.replies[execution.request_id] = reply
        await worker.tell(pb.GatewayMessageType.GATEWAY_EXECUTOR_REQUEST, execution.SerializeToString())
        return await reply

    async def run_with_retries(self, data: Mapping[str, object]) -> list[Reply]:
        """Execute the function, with the retries of its configuration; the last reply is the result."""
        replies: list[Reply] = []
        retries = self.ready()[0].functions[0]["steps"]["step"]["retries"]["attempts"]
        for attempt in range(1 + retries):
            replies.append(await self.run(data, attempt))
            if replies[-1].status == "DONE" or replies[-1].no_retry:
                break
        return replies

    async def close_all(self, code: int = 1011) -> None:
        """Close every connection, as a restarting gateway does."""
        for worker in list(self.workers):
            await worker.send({"type": "websocket.close", "code": code})

    async def drain(self) -> None:
        """Ask the workers to connect to another gateway."""
        for worker in list(self.workers):
            await worker.tell(pb.GatewayMessageType.GATEWAY_CLOSING)

    async def _start(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        expected = f"Bearer {hashed(self.signing_key)}" if self.signing_key else None
        status, content = self.start_status, b""
        if scope["path"] != "/v0/connect/start" or scope["method"] != "POST":
            status = 404
        elif expected is not None and headers.get("authorization") != expected:
            status, content = 401, b'{"error":"authentication failed"}'
        elif status == 200:
            pb.StartRequest.FromString(body)
            content = self._started().SerializeToString()
        self.starts += 1
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": content})

    def _started(self) -> pb.StartResponse:
        connection_id = uuid4().hex
        self._connections.add(connection_id)
        return pb.StartResponse(
            connection_id=connection_id,
            gateway_endpoint=self.url.replace("http", "ws", 1) + "/v0/connect",
            gateway_group="test",
            session_token=f"session-{connection_id}",
            sync_token=hashed(self.signing_key) if self.signing_key else "",
        )

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert SUBPROTOCOL in scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        if self.silent:
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        hello = pb.ConnectMessage(kind=pb.GatewayMessageType.GATEWAY_HELLO)
        await send({"type": "websocket.send", "bytes": hello.SerializeToString()})
        worker = await self._shake_hands(receive, send)
        if worker is None:
            await send({"type": "websocket.close", "code": 1008})
            return
        self.workers.append(worker)
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await self._heed(worker, pb.ConnectMessage.FromString(message["bytes"]))
        finally:
            self.workers.remove(worker)
            for reply in worker.replies.values():
                reply.cancel()

    async def _shake_hands(self, receive: Any, send: Any) -> Worker | None:
        with anyio.move_on_after(5):
            first = await receive()
            if first["type"] == "websocket.disconnect":
                return None
            message = pb.ConnectMessage.FromString(first["bytes"])
            offer = pb.WorkerConnectRequestData.FromString(message.payload)
            why = self._why_refused(message.kind, offer)
            if why:
                self.refused.append(why)
                return None
            worker = Worker(offer.instance_id, json.loads(offer.apps[0].functions), send)
            ready = pb.GatewayConnectionReadyData(heartbeat_interval="10s", extend_lease_interval="30s")
            await worker.tell(pb.GatewayMessageType.GATEWAY_CONNECTION_READY, ready.SerializeToString())
            return worker
        return None

    def _why_refused(self, kind: int, offer: pb.WorkerConnectRequestData) -> str | None:
        if kind != pb.GatewayMessageType.WORKER_CONNECT:
            return "Invalid first message, expected sdk-connect"
        if offer.connection_id not in self._connections:
            return "Invalid connection ID in SDK connect message"
        if not offer.instance_id:
            return "Missing instanceId in SDK connect message"
        if offer.auth_data.session_token != f"session-{offer.connection_id}":
            return "Authentication failed"
        return None if offer.apps else "Missing apps in SDK connect message"

    async def _heed(self, worker: Worker, message: pb.ConnectMessage) -> None:
        kinds = pb.GatewayMessageType
        if message.kind == kinds.WORKER_HEARTBEAT:
            worker.heartbeats += 1
            await worker.tell(kinds.GATEWAY_HEARTBEAT)
        elif message.kind == kinds.WORKER_PAUSE:
            worker.paused = True
        elif message.kind == kinds.WORKER_REQUEST_EXTEND_LEASE:
            lease = pb.WorkerRequestExtendLeaseData.FromString(message.payload)
            answer = pb.WorkerRequestExtendLeaseAckData(request_id=lease.request_id, new_lease_id=uuid4().hex)
            await worker.tell(kinds.WORKER_REQUEST_EXTEND_LEASE_ACK, answer.SerializeToString())
        elif message.kind == kinds.WORKER_REPLY:
            reply = pb.SDKResponse.FromString(message.payload)
            answer_to = pb.WorkerReplyAckData(request_id=reply.request_id)
            await worker.tell(kinds.WORKER_REPLY_ACK, answer_to.SerializeToString())
            name = pb.SDKResponseStatus.Name(reply.status)
            worker.replies.pop(reply.request_id).set_result(
                Reply(name, json.loads(reply.body), reply.no_retry)
            )


@asynccontextmanager
async def serve_gateway(gateway: ConnectGateway, port: int = 0) -> AsyncIterator[str]:
    """Serve it; yields the URL to be used as INNGEST_API_BASE_URL."""
    async with serve_asgi(gateway, port) as url:
        gateway.url = url
        yield url
