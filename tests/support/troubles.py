"""Faults that a test causes: in the sandbox's servers, and for a row."""

from __future__ import annotations

from uuid import UUID

import anyio

from tests.support.stack import Stack


def poison(stack: Stack, repository_id: UUID) -> None:
    """Make every update of this repository's row fail."""
    stack.app.connection.execute(
        f"""
        create function poison() returns trigger language plpgsql as $$
        begin raise exception 'poisoned' using errcode = 'check_violation'; end $$;
        create trigger poison before update on tracked_repositories
        for each row when (new.repository_id = '{repository_id}') execute function poison();
        """
    )


async def heal(stack: Stack) -> None:
    """Undo `poison`. In a thread, since it waits for transactions that the sandbox in this loop must end."""
    await anyio.to_thread.run_sync(
        lambda: stack.app.connection.execute("drop trigger poison on tracked_repositories")
    )
