"""`priorityd check` as a process; each wrong set-up is in tests/checks."""

from __future__ import annotations

import json

from tests.support.daemon_process import (
    free_port,
    priorityd,
)
from tests.support.stack import Stack


async def test_check_finds_a_good_set_up_good(stack: Stack) -> None:
    stack.app.repository()
    code, out, _ = await stack.priorityd("check", "--json", PRIORITYD_HTTP_PORT=free_port())
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True)
    assert (report["verdict"], report["next"]) == ("All is well.", "priorityd run")
    assert {finding["outcome"] for finding in report["findings"]} == {"ok"}
    assert [finding["step"] for finding in report["findings"]] == [
        "settings",
        "metrics port",
        "Supabase URL",
        "key and functions",
        "migrations",
        "role",
        "privileges",
        "memberships",
        "indexes",
        "writes",
        "publication",
        "removals",
        "change stream",
    ]


async def test_check_names_what_is_wrong_and_ends_with_what_to_do(stack: Stack) -> None:
    stack.app.connection.execute("alter publication supabase_realtime drop table workspace_repositories")
    code, out, _ = await stack.priorityd("check", PRIORITYD_HTTP_PORT=free_port())
    assert code == 1
    assert (
        "FAILED   publication: not in the publication supabase_realtime: public.workspace_repositories" in out
    )
    assert "FAILED   change stream" in out
    assert out.endswith(
        "\n\nFailed: publication, change stream. Start with publication, then check again.\n"
        '         $ psql "$DATABASE_URL" -c "alter publication supabase_realtime add table'
        ' public.workspace_repositories"\n'
    )


async def test_check_tells_a_refused_key_from_an_unreachable_url(stack: Stack) -> None:
    code, out, _ = await stack.priorityd("check", SUPABASE_SERVICE_ROLE_KEY="nonsense")
    assert code == 77
    assert "FAILED   key and functions" in out
    assert "$ export SUPABASE_SERVICE_ROLE_KEY=" in out
    code, out, _ = await priorityd(
        "check", SUPABASE_URL=f"http://127.0.0.1:{free_port()}", SUPABASE_SECRET_KEY="x"
    )
    assert code == 69
    assert "FAILED   Supabase URL" in out
