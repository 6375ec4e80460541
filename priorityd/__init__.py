"""Keeps `tracked_repositories.priority` in sync with workspace membership on Supabase.

The few names that an application needs. Each is imported when it is first asked for, so that the daemon and
the command line pay for nothing that they do not use.

`core` decides and `daemon` does. Both are folders at the top of the repository, and links here: what is
installed is all in this package, and can't meet an application's own `core`, or the `daemon` of another
distribution.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from priorityd.core import __version__
    from priorityd.core.jobs.events import Job
    from priorityd.core.library.workspace_priority_sync import WorkspacePrioritySync
    from priorityd.daemon.database.store import open_store
    from priorityd.daemon.jobs.direct_queue import open_job_queue
    from priorityd.daemon.library.workspace_hooks import WorkspaceHooks
    from priorityd.daemon.settings import load_settings

__all__ = [
    "Job",
    "WorkspaceHooks",
    "WorkspacePrioritySync",
    "__version__",
    "load_settings",
    "open_job_queue",
    "open_store",
]

_HOMES = {
    "Job": "priorityd.core.jobs.events",
    "WorkspaceHooks": "priorityd.daemon.library.workspace_hooks",
    "WorkspacePrioritySync": "priorityd.core.library.workspace_priority_sync",
    "__version__": "priorityd.core",
    "load_settings": "priorityd.daemon.settings",
    "open_job_queue": "priorityd.daemon.jobs.direct_queue",
    "open_store": "priorityd.daemon.database.store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
