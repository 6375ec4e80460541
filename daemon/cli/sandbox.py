"""`priorityd sandbox`."""

from __future__ import annotations

from typing import Any

import anyio

from priorityd.core.errors import ConfigurationError


def run_sandbox_command(**options: Any) -> int:
    """Run the sandbox with these `SandboxOptions` until a signal.

    Raises `ConfigurationError` if the extra is not installed.
    """
    try:
        from priorityd.daemon.sandbox.command import SandboxOptions, run_sandbox
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The sandbox needs the package {error.name!r}. In the clone, type: pip install '.[sandbox]'"
        ) from None
    return anyio.run(run_sandbox, SandboxOptions(**options))
