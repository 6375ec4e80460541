"""Troubles that a test makes: for the sandbox's servers, and for a row."""

from __future__ import annotations

from uuid import UUID

import anyio

from tests.support.stack import Stack


def poison(stack: Stack, repository_id: UUID) -> None:
    """From now on no update of this repository's row succeeds."""
    stack.app.connection.execute(
        f"""
        create function poison() returns trigger language plpgsql as $$
        begin raise exception 'poisoned' using errcode = 'check_violation'; end $$;
        create trigger poison before update on tracked_repositories
        for each row when (new.repository_id = '{repository_id}') execute function poison();
        """
    )


async def heal(stack: Stack) -> None:
    """Undo `poison`. In a thread: it waits for transactions that the sandbox, in this loop, has to end."""
    await anyio.to_thread.run_sync(
        lambda: stack.app.connection.execute("drop trigger poison on tracked_repositories")
    )
