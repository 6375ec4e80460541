"""What keeps rows from coming through the change stream."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg

from priorityd.daemon.sandbox.migrate import apply_migrations
from priorityd.daemon.sandbox.worlds import PLAIN, build
from tests.checks.network import answer, gateway
from tests.checks.situation import Act, Place, Situation
from tests.support.database import Server, schema_sql
from tests.support.faults import misbehave
from tests.support.servers import start_servers

_REALTIME = "/realtime/"
_SAME = "lead to the same project?"


def _fault(name: str) -> Act:
    return lambda place: misbehave(place.stack.server, f"realtime/{name}?seconds=600")


def _end(name: str) -> Act:
    return lambda place: misbehave(place.stack.server, f"realtime/{name}?seconds=0")


async def _through_gateway(place: Place, realtime: int | bytes) -> None:
    port = await place.open.enter_async_context(
        gateway(lambda path: realtime if path.startswith(_REALTIME) else place.port)
    )
    place.set(SUPABASE_URL=f"http://127.0.0.1:{port}")


async def _no_websockets(place: Place) -> None:
    await _through_gateway(place, answer(404, "<html></html>"))


async def _another_project(place: Place, *, same_keys: bool) -> None:
    """Another database, whose Realtime answers in this one's place."""
    admin_url = urlsplit(place.stack.database.url)._replace(path="/postgres").geturl()
    database = place.open.enter_context(Server(admin_url).database())
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(schema_sql("roles"))
        build(connection, PLAIN)
        apply_migrations(connection)
    keys = place.stack.server.keys if same_keys else None
    server = await place.open.enter_async_context(start_servers(database.url, keys=keys))
    await _through_gateway(place, int(server.url.rpartition(":")[2]))


async def _mixed(place: Place) -> None:
    await _another_project(place, same_keys=True)


async def _mixed_keys(place: Place) -> None:
    await _another_project(place, same_keys=False)


def _straight(place: Place) -> None:
    place.set(SUPABASE_URL=place.right["SUPABASE_URL"])


def _situation(
    name: str, wrong: Act, says: str, remedy: str, fix: Act, command: str = "priorityd check"
) -> Situation:
    return Situation(name, wrong, "change stream", says, 1, remedy, command, fix=fix)


SITUATIONS = [
    _situation(
        "a project that allows private channels only",
        _fault("private"),
        "PrivateOnly: This project only allows private channels",
        'Switch on "Allow public access" in the project\'s Realtime settings',
        _end("private"),
    ),
    _situation(
        "Realtime refuses the subscription",
        _fault("deny"),
        "the subscription does not go live: ",
        "Is Realtime enabled for the project?",
        _end("deny"),
        "pg_replication_slots",
    ),
    _situation(
        "Realtime is switched off for the project",
        _fault("disable"),
        "Realtime was disabled for this tenant",
        "Is Realtime enabled for the project?",
        _end("disable"),
        "pg_replication_slots",
    ),
    _situation(
        "WebSockets are not forwarded",
        _no_websockets,
        "the WebSocket handshake was answered with 404",
        "forward WebSockets to /realtime/v1/websocket",
        _straight,
    ),
    _situation(
        "Realtime is another project's",
        _mixed_keys,
        "the WebSocket handshake was answered with 401: Invalid authentication credentials",
        _SAME,
        _straight,
    ),
    _situation(
        "Realtime is another project's, which has the same keys",
        _mixed,
        "the channel is joined, but rows do not arrive",
        _SAME,
        _straight,
        "pg_replication_slots",
    ),
]
