"""`priorityd sandbox`."""

from __future__ import annotations

from pathlib import Path

import anyio

from priorityd.core.errors import ConfigurationError


def run_sandbox_command(
    *,
    with_daemon: bool,
    world: str,
    empty: bool,
    data_dir: Path | None,
    port: int,
    http_port: int,
    traffic: float,
) -> int:
    """Run the sandbox until a signal. Raises `ConfigurationError` if the extra is not installed."""
    try:
        from priorityd.daemon.sandbox.command import SandboxOptions, run_sandbox
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The sandbox needs the package {error.name!r}. In the clone, type: pip install '.[sandbox]'"
        ) from None
    options = SandboxOptions(
        with_daemon=with_daemon,
        world=world,
        empty=empty,
        data_dir=data_dir,
        port=port,
        http_port=http_port,
        traffic=traffic,
    )
    return anyio.run(run_sandbox, options)
