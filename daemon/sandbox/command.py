"""`priorityd sandbox`: starts everything up to a running daemon, and leaves nothing behind.

The order of starting is: ports (so that a busy one is noticed before anything is started), PostgreSQL, schema
and data, REST and Realtime, the daemon, traffic. They are stopped in reverse order, each being given time to
end properly. SIGINT, SIGTERM and SIGHUP (the terminal is gone) end the sandbox at any point; a second signal
kills the daemon instead of waiting until it has drained.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from priorityd.daemon.sandbox.child import DaemonProcess
from priorityd.daemon.sandbox.postgres import DataDirError, EmbeddedPostgres, embedded_postgres
from priorityd.daemon.sandbox.pulse import watch
from priorityd.daemon.sandbox.seed import InstallationRefusedError, prepare_database
from priorityd.daemon.sandbox.server import (
    PortError,
    SandboxServer,
    reserve_port,
    serve_sandbox,
)
from priorityd.daemon.sandbox.traffic import Traffic
from priorityd.daemon.sandbox.view import Facts, View, choose_view
from priorityd.daemon.sandbox.worlds import OtherWorldError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from pathlib import Path

DONE, FAILED = 0, 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class SandboxOptions:
    """The options of the command.

    Attributes:
        port: port of REST and Realtime, on loopback; 0 takes any free one.
        with_daemon: run the daemon as well.
        http_port: port of the daemon's endpoints; 0 takes any free one.
        world: the application's schema (`priorityd.daemon.sandbox.worlds`).
        empty: insert no demo data. Without repositories there is no traffic either.
        data_dir: where PostgreSQL keeps its data; None for a temporary directory.
        traffic: demo changes, and as many jobs, per second; 0 for none.
    """

    port: int
    with_daemon: bool
    http_port: int
    world: str
    empty: bool
    data_dir: Path | None
    traffic: float


async def run_sandbox(options: SandboxOptions) -> int:
    """Run until a signal, and return the exit code."""
    with choose_view() as view, _stop_on_signals() as stop:
        try:
            listener = reserve_port(options.port)
        except PortError as error:
            view.say(f"{error.strerror}: choose another with --port")
            return FAILED
        with listener:
            try:
                http_port = _free_port(options.http_port) if options.with_daemon else 0
            except PortError as error:
                view.say(f"{error.strerror}: choose another for the daemon with --http-port")
                return FAILED
            return await _Sandbox(options, listener, http_port, view, stop).run()


class _Stop:
    """Whether the sandbox is to end, and whether urgently."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.urgent = asyncio.Event()

    def signalled(self) -> None:
        (self.urgent if self.wanted.is_set() else self.wanted).set()


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    loop, stop = asyncio.get_running_loop(), _Stop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.signalled)
    try:
        yield stop
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)


class _Sandbox:
    """One run of the command, after its ports are known to be free."""

    def __init__(
        self, options: SandboxOptions, listener: socket.socket, http_port: int, view: View, stop: _Stop
    ) -> None:
        self._options = options
        self._listener = listener
        self._http_port = http_port
        self._view = view
        self._stop = stop

    async def run(self) -> int:
        """Start everything, wait for a signal or a failure, and stop everything."""
        try:
            async with AsyncExitStack() as stack:
                return await self._run(stack)
        except DataDirError as error:
            self._view.say(f"{error.strerror}: choose another with --data-dir")
            return FAILED
        except OtherWorldError as error:
            self._view.say(
                f"the data directory holds the world {error}: use --world {error}, or another --data-dir"
            )
            return FAILED
        except InstallationRefusedError as error:
            self._view.say(f"the migrations can't be applied to this world: {error}")
            return FAILED
        except subprocess.CalledProcessError:
            # Ctrl-C on a terminal also reaches the programs that set PostgreSQL up.
            if self._stop.wanted.is_set():
                return DONE
            raise

    async def _run(self, stack: AsyncExitStack) -> int:
        self._view.step("PostgreSQL 18")
        postgres = await stack.enter_async_context(_postgres(self._options.data_dir))
        if self._stop.wanted.is_set():
            return DONE
        await self._prepare(postgres.url())
        self._view.step("REST and Realtime")
        server = await stack.enter_async_context(serve_sandbox(postgres.url(), listener=self._listener))
        daemon = await self._start_daemon(stack, server) if self._options.with_daemon else None
        if daemon is not None:
            self._view.step("priorityd")
            if not await self._first_of(daemon.process.ready(), daemon):
                return self._verdict(daemon)
        self._view.ready(_facts(server, postgres.url(), daemon), _places(postgres, daemon))
        self._start_activities(stack, postgres.url(), daemon)
        await self._first_of(server.ended.wait(), daemon)
        return self._verdict(daemon)

    async def _prepare(self, url: str) -> None:
        loop = asyncio.get_running_loop()

        def step(text: str) -> None:
            loop.call_soon_threadsafe(self._view.step, text)

        options = self._options
        await asyncio.to_thread(
            prepare_database, url, world=options.world, with_demo_data=not options.empty, step=step
        )

    async def _start_daemon(self, stack: AsyncExitStack, server: SandboxServer) -> _Daemon:
        daemon = await DaemonProcess.start(server.url, server.service_role_key, self._http_port)
        followed = _Daemon(daemon, asyncio.create_task(daemon.follow(self._view.event)))
        stack.push_async_callback(followed.end, self._stop.urgent)
        return followed

    def _start_activities(self, stack: AsyncExitStack, url: str, daemon: _Daemon | None) -> None:
        """Start the traffic and the updates of the screen."""
        activities: list[Coroutine[Any, Any, None]] = []
        if self._options.traffic > 0:
            activities.append(Traffic(url, self._options.traffic, self._report_traffic).run())
        if self._view.is_live:
            activities.append(watch(url, daemon.process.url if daemon else None, self._view.pulse))
        for activity in activities:
            stack.push_async_callback(_cancel, asyncio.create_task(activity))

    def _report_traffic(self, event: dict[str, Any]) -> None:
        self._view.event({"source": "traffic"} | event)

    async def _first_of(self, wanted: Coroutine[Any, Any, object], daemon: _Daemon | None) -> bool:
        """True if `wanted` came before a signal and before the daemon's end."""
        waiting = asyncio.create_task(wanted)
        signalled = asyncio.create_task(self._stop.wanted.wait())
        others = {signalled} | ({daemon.followed} if daemon else set())
        try:
            done, _ = await asyncio.wait({waiting, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(waiting)
            await _cancel(signalled)
        return waiting in done and not done & others

    def _verdict(self, daemon: _Daemon | None) -> int:
        """The exit code: a failure unless a signal has ended it."""
        if self._stop.wanted.is_set():
            return DONE
        if daemon is not None and daemon.followed.done():
            self._view.say(f"the daemon exited unexpectedly with code {daemon.followed.result()}")
        else:
            self._view.say("the servers for REST and Realtime have failed")
        return FAILED


@dataclass(frozen=True)
class _Daemon:
    """The child process and the task that reads its log."""

    process: DaemonProcess
    followed: asyncio.Task[int]

    async def end(self, urgent: asyncio.Event) -> None:
        """Stop it and read its log to the end. It may drain until `urgent` is set."""
        stopping = asyncio.create_task(self.process.stop())
        is_urgent = asyncio.create_task(urgent.wait())
        await asyncio.wait({stopping, is_urgent}, return_when=asyncio.FIRST_COMPLETED)
        if is_urgent.done():
            self.process.kill()
        await stopping
        await _cancel(is_urgent)
        await self.followed


@asynccontextmanager
async def _postgres(data_dir: Path | None) -> AsyncIterator[EmbeddedPostgres]:
    """`embedded_postgres`, without blocking the event loop."""
    manager = embedded_postgres(data_dir)
    postgres = await asyncio.to_thread(manager.__enter__)
    try:
        yield postgres
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _free_port(port: int) -> int:
    """The port, or a free one for 0. The daemon takes it later."""
    with reserve_port(port) as reserved:
        return int(reserved.getsockname()[1])


def _facts(server: SandboxServer, database_url: str, daemon: _Daemon | None) -> Facts:
    return Facts(
        supabase_url=server.url,
        service_role_key=server.service_role_key,
        anon_key=server.anon_key,
        database_url=database_url,
        metrics_url=f"{daemon.process.url}/metrics" if daemon else None,
    )


def _places(postgres: EmbeddedPostgres, daemon: _Daemon | None) -> list[tuple[str, str]]:
    """Where a person can look, besides the facts for programs."""
    page = [("Status page", f"{daemon.process.url}/")] if daemon else []
    return [*page, ("SQL", postgres.psql_line())]
