"""Commands that run the daemon or ask how it is."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from priorityd.daemon.cli.parameters import json_option, run_connected
from priorityd.daemon.sandbox.worlds import WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
def run() -> None:
    """Run the daemon until SIGTERM or SIGINT.

    SIGHUP reads the key again, if it came from a file, and starts a full resync. A second SIGTERM or
    SIGINT ends the daemon without finishing the work that is waiting.
    """
    # Imported modules are never garbage. A full collection that scanned them would block the event loop for
    # some 75 ms each time (`python -m tests.benchmarks garbage`).
    gc.disable()
    with _hidden("greenlet", "pygments", "rich"):
        from priorityd.daemon.cli.run import run_daemon_command

    gc.freeze()
    gc.enable()
    sys.exit(run_daemon_command())


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make these packages look as if they were not installed, for the imports within the block.

    httpx would import them for its own command line, and structlog for tracebacks on a terminal and for
    greenlets, which are not used here. That would cost 5 MiB as long as the daemon runs, and a fifth of its
    import time.
    """
    hidden = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None makes an import fail with ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@click.command()
@click.option("--no-daemon", is_flag=True, help="Run the servers only, without the daemon.")
@click.option(
    "--world",
    type=click.Choice(WORLDS),
    default=WORLDS[0],
    metavar="NAME",
    help=f"Use the schema of a more demanding application: {', '.join(WORLDS[1:])}.",
)
@click.option("--empty", is_flag=True, help="Start without demo data.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data in this directory for the next run.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=54321,
    show_default=True,
    help="Port of the stand-in for Supabase; 0 takes any free one.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=9815,
    show_default=True,
    envvar="PRIORITYD_HTTP_PORT",
    show_envvar=True,
    help="Port of the daemon's own endpoints; 0 takes any free one.",
)
@click.option(
    "--traffic",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default="1",
    help="Demo changes per second, and as many demo jobs; 0 for none.",
)
def sandbox(*, no_daemon: bool, **options: object) -> None:
    """Run everything on this machine: PostgreSQL, a stand-in for Supabase, and the daemon.

    For development and for a first look. It needs no account and no Docker, and leaves nothing behind.
    PostgreSQL is real; /rest/v1 and /realtime/v1 are stand-ins for Supabase's. Needs the extra "sandbox".
    """
    from priorityd.daemon.cli.sandbox import run_sandbox_command

    sys.exit(run_sandbox_command(with_daemon=not no_daemon, **options))


@click.command()
@json_option
def status(**options: object) -> None:
    """Show a summary of all priorities, and the state of the daemon if one runs on this machine."""
    from priorityd.daemon.cli.status import status_command

    run_connected(status_command, options)


@click.command()
@click.option("--ready", is_flag=True, help="Test whether it is ready, not only whether it is alive.")
def health(*, ready: bool) -> None:
    """Report by the exit code whether the daemon on this machine is alive."""
    from priorityd.daemon.cli.health import health_command

    sys.exit(health_command(ready=ready))
