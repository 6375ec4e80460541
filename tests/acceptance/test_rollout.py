"""What `docs/rollout.md` says of the commands: a dry run before and after another definition is in force."""

from __future__ import annotations

import re

from tests.support.repository import DOCS
from tests.support.stack import Stack

(PAYING,) = re.findall(r"-- paying tiers\n(.*?)```", (DOCS / "rollout.md").read_text(), re.DOTALL)


async def test_a_dry_run_tells_before_and_after_what_a_definition_changes(stack: Stack) -> None:
    repository = stack.app.repository()
    stack.app.add(stack.app.workspace(), repository)
    assert (await stack.priorityd("sync"))[0] == 0
    assert (await stack.priorityd("sync", "--dry-run"))[0] == 0
    stack.database.connect().execute(PAYING.encode())
    code, told, _ = await stack.priorityd("sync", "--dry-run")
    assert (code, str(repository) in told) == (10, True)
    assert (await stack.priorityd("sync"))[0] == 0
    assert (await stack.priorityd("sync", "--dry-run"))[0] == 0
    _, told, _ = await stack.priorityd("explain", str(repository))
    assert "medium" in told
