"""Tables through REST: what PostgREST answers, and what the caller's role may see and do.

The shapes are those of PostgREST's own tests (`test/spec/Feature/Query/*.hs`, commit 4834678).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from postgrest.types import CountMethod
from supabase import acreate_client

from tests.support.daemon_process import PLAIN
from tests.support.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from postgrest import AsyncRequestBuilder

    from tests.support.database import Database
    from tests.support.servers import Servers

_SINGLE = {"Accept": "application/vnd.pgrst.object+json"}
_ROWS = {"Prefer": "return=representation"}
_AUTHENTICATED = {"role": "authenticated", "exp": 4_000_000_000}
_UNPARSED = '"failed to parse filter ({})" (line 1, column 1)'
_UNKNOWN = "Could not find the '{}' column of 'workspaces' in the schema cache"
_DUPLICATE = 'duplicate key value violates unique constraint "workspaces_slug_key"'
_NO_TABLE = "Could not find the table 'public.no_such_table' in the schema cache"
_INVALID = 'invalid input syntax for type {}: "x"'
_ERRORS: list[tuple[str, str, Any, int, str, str]] = [
    ("GET", "no_such_table", None, 404, "PGRST205", _NO_TABLE),
    ("GET", "workspaces?none=eq.1", None, 400, "42703", "column workspaces.none does not exist"),
    ("GET", "workspaces?id=eq.x", None, 400, "22P02", _INVALID.format("uuid")),
    ("GET", "workspaces?slug=equals.x", None, 400, "PGRST100", _UNPARSED.format("equals.x")),
    ("GET", "workspaces?slug=in.a", None, 400, "PGRST100", _UNPARSED.format("in.a")),
    ("GET", "workspaces?slug=in.(a,b", None, 400, "PGRST100", _UNPARSED.format("in.(a,b")),
    ("GET", 'workspaces?slug=in.(a,"b)', None, 400, "PGRST100", _UNPARSED.format('in.(a,"b)')),
    ("POST", "workspaces", {"none": 1}, 400, "PGRST204", _UNKNOWN.format("none")),
    ("PATCH", "workspaces?slug=eq.a", {"none": 1}, 400, "PGRST204", _UNKNOWN.format("none")),
    ("POST", "workspaces", {"slug": "a"}, 409, "23505", _DUPLICATE),
    ("POST", "workspaces", [{"slug": "x"}, {"name": "y"}], 400, "PGRST102", "All object keys must match"),
    ("POST", "workspaces", {"created_at": "x"}, 400, "22007", _INVALID.format("timestamp with time zone")),
]


class Tables:
    """A client with a key, or with a token behind the anon key."""

    def __init__(self, http: httpx.AsyncClient, key: str, token: str | None = None) -> None:
        self._http = http
        self._headers = {"apikey": key, "Authorization": f"Bearer {token or key}"}

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = self._headers | options.pop("headers", {})
        return await self._http.request(method, f"/rest/v1/{path}", json=body, headers=headers, **options)


@pytest.fixture
async def http(sandbox: Servers) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=PATIENCE_SECONDS, verify=PLAIN) as http:
        yield http


@pytest.fixture
def tables(http: httpx.AsyncClient, sandbox: Servers) -> Tables:
    return Tables(http, sandbox.service_role_key)


@pytest.fixture
def anon(http: httpx.AsyncClient, sandbox: Servers) -> Tables:
    return Tables(http, sandbox.anon_key)


@pytest.fixture
def authenticated(http: httpx.AsyncClient, sandbox: Servers) -> Tables:
    return Tables(http, sandbox.anon_key, sandbox.keys.sign(_AUTHENTICATED))


@pytest.fixture
def named(database: Database) -> None:
    """Four workspaces."""
    database.connect().execute(
        "insert into workspaces (name, slug, tier) values"
        " ('a', 'a', 'free'), ('b, (c)', 'b', 'pro'), ('say \"d\\\"', 'd', null), ('e', 'e', 'free')"
    )


def slugs(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [row["slug"] for row in response.json()]


async def test_rows_are_chosen_ordered_and_bounded(named: None, tables: Tables) -> None:
    everything = await tables("GET", "workspaces?select=slug,was:tier&order=slug")
    assert everything.json()[1] == {"slug": "b", "was": "pro"}
    assert everything.headers["content-range"] == "0-3/*"
    assert everything.headers["content-type"] == "application/json; charset=utf-8"
    assert slugs(await tables("GET", "workspaces?tier=eq.free&order=slug.desc")) == ["e", "a"]
    assert slugs(await tables("GET", "workspaces?tier=eq.free&slug=eq.e")) == ["e"]
    assert slugs(await tables("GET", "workspaces?order=tier.desc.nullslast,slug&limit=3")) == ["b", "a", "e"]
    listed = {"name": 'in.("b, (c)","say \\"d\\\\\\"",e)', "order": "slug"}
    assert slugs(await tables("GET", "workspaces", params=listed)) == ["b", "d", "e"]
    nothing = await tables("GET", "workspaces?slug=in.()")
    assert (nothing.json(), nothing.headers["content-range"]) == ([], "*/*")


async def test_rows_are_counted_if_asked_for(named: None, tables: Tables) -> None:
    part = await tables("GET", "workspaces?tier=eq.free&limit=1", headers={"Prefer": "count=exact"})
    assert (part.status_code, part.headers["content-range"]) == (206, "0-0/2")
    head = await tables("HEAD", "workspaces", headers={"Prefer": "count=exact"})
    assert (head.status_code, head.content, head.headers["content-range"]) == (200, b"", "0-3/4")


async def test_sets_are_cut_at_1000_rows(tables: Tables, database: Database) -> None:
    database.connect().execute("insert into workspaces (name) select 'n' from generate_series(1, 1500)")
    response = await tables("GET", "workspaces?select=id&limit=1200", headers={"Prefer": "count=exact"})
    assert (len(response.json()), response.headers["content-range"]) == (1000, "0-999/1500")


async def test_one_row_can_be_demanded(named: None, tables: Tables, database: Database) -> None:
    one = await tables("GET", "workspaces?slug=eq.a&select=slug", headers=_SINGLE)
    assert one.json() == {"slug": "a"}
    assert one.headers["content-type"] == "application/vnd.pgrst.object+json; charset=utf-8"
    two = await tables("PATCH", "workspaces?tier=eq.free", {"tier": "pro"}, headers=_SINGLE | _ROWS)
    assert (two.status_code, two.json()["code"]) == (406, "PGRST116")
    assert two.json()["details"] == "The result contains 2 rows"
    paying = database.connect().execute("select count(*) from workspaces where tier = 'pro'").fetchone()
    assert paying == (1,), "the change was undone"


async def test_rows_are_inserted(tables: Tables, database: Database) -> None:
    quiet = await tables("POST", "workspaces", {"slug": "x"})
    assert (quiet.status_code, quiet.content, quiet.headers["content-range"]) == (201, b"", "*/*")
    rows = [{"slug": "y", "name": "Y"}, {"slug": "z", "name": None}]
    told = await tables("POST", "workspaces?select=slug,tier", rows, headers=_ROWS)
    assert (told.status_code, told.json()) == (
        201,
        [{"slug": "y", "tier": "free"}, {"slug": "z", "tier": "free"}],
    )
    assert told.headers["preference-applied"] == "return=representation"
    some = await tables(
        "POST", 'workspaces?columns="slug"&select=name', [{"slug": "w", "name": "not set"}], headers=_ROWS
    )
    assert some.json() == [{"name": None}]
    assert (await tables("POST", "workspaces", {})).status_code == 201
    assert (await tables("POST", "workspaces", [], headers=_ROWS)).json() == []
    assert database.connect().execute("select count(*) from workspaces").fetchone() == (5,)


async def test_rows_are_updated_and_deleted(named: None, tables: Tables, database: Database) -> None:
    quiet = await tables("PATCH", "workspaces?slug=in.(a,e)", {"tier": "pro"})
    assert (quiet.status_code, quiet.content, quiet.headers["content-range"]) == (204, b"", "0-1/*")
    told = await tables("PATCH", "workspaces?slug=eq.a&select=slug,tier", {"tier": "team"}, headers=_ROWS)
    assert (told.status_code, told.json()) == (200, [{"slug": "a", "tier": "team"}])
    assert (await tables("PATCH", "workspaces?slug=eq.a", {}, headers=_ROWS)).json() == []
    gone = await tables("DELETE", "workspaces?tier=eq.pro&select=slug&order=slug.desc", headers=_ROWS)
    assert (gone.status_code, gone.json()) == (200, [{"slug": "e"}, {"slug": "b"}])
    assert (await tables("DELETE", "workspaces?slug=eq.a")).status_code == 204
    assert database.connect().execute("select slug from workspaces").fetchall() == [("d",)]


async def test_nothing_is_changed_without_a_filter(named: None, tables: Tables) -> None:
    for method, words in (("PATCH", "UPDATE"), ("DELETE", "DELETE")):
        refused = await tables(method, "workspaces", {"tier": "pro"})
        assert (refused.status_code, refused.json()["code"]) == (400, "21000")
        assert refused.json()["message"] == f"{words} requires a WHERE clause"


async def test_row_level_security_is_that_of_the_key(
    named: None, tables: Tables, anon: Tables, authenticated: Tables, database: Database
) -> None:
    database.connect().execute(
        """create policy seen on workspaces for select to authenticated using (tier = 'free');
        create policy added on workspaces for insert to authenticated with check (tier = 'free');
        create policy mine on workspaces for update to authenticated
            using (slug = current_setting('request.jwt.claims')::json ->> 'sub')"""
    )
    assert slugs(await anon("GET", "workspaces")) == []
    assert slugs(await authenticated("GET", "workspaces?order=slug")) == ["a", "e"]
    assert len(slugs(await tables("GET", "workspaces"))) == 4
    refused = await anon("POST", "workspaces", {"slug": "x"})
    assert (refused.status_code, refused.json()["code"]) == (401, "42501")
    forbidden = await authenticated("POST", "workspaces", {"tier": "pro"})
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "42501")
    assert (await authenticated("POST", "workspaces", {"slug": "x"})).status_code == 201
    assert (await authenticated("PATCH", "workspaces?slug=eq.a", {"name": "n"}, headers=_ROWS)).json() == []


async def test_errors_are_postgrests(named: None, tables: Tables) -> None:
    for method, path, body, status, code, words in _ERRORS:
        response = await tables(method, path, body)
        told = response.json()
        assert (response.status_code, told["code"], told["message"]) == (status, code, words)
        assert set(told) == {"code", "details", "hint", "message"}
        assert response.headers["proxy-status"] == f"PostgREST; error={code}"
    unknown = await tables("OPTIONS", "workspaces")
    assert unknown.status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "workspaces?select=slug,workspace_repositories(id)", {}),
        ("GET", "workspaces?select=slug::text", {}),
        ("GET", "workspaces?created_at=gt.2025-01-01", {}),
        ("GET", "workspaces?slug=not.eq.a", {}),
        ("GET", "workspaces?or=(slug.eq.a,slug.eq.b)", {}),
        ("GET", "workspaces?order=workspace_repositories(id)", {}),
        ("GET", "workspaces?offset=1", {}),
        ("GET", "workspaces", {"Range": "0-1"}),
        ("GET", "workspaces", {"Prefer": "count=planned"}),
        ("POST", "workspaces?on_conflict=slug", {"Prefer": "resolution=merge-duplicates"}),
        ("PUT", "workspaces?slug=eq.a", {}),
        ("DELETE", "workspaces?slug=eq.a&limit=1", {}),
    ],
)
async def test_what_is_not_served_says_so_in_a_sentence(
    tables: Tables, method: str, path: str, headers: dict[str, str]
) -> None:
    response = await tables(method, path, {"slug": "a"}, headers=headers)
    told = response.json()
    assert (response.status_code, told["code"]) == (400, "PGRST127")
    assert told["message"] == "Feature not implemented"
    assert told["details"].startswith("This sandbox does not support ")


@pytest.mark.filterwarnings("ignore:The '(timeout|verify)' parameter is deprecated:DeprecationWarning")
async def test_the_python_client_works_with_it(sandbox: Servers) -> None:
    supabase = await acreate_client(sandbox.url, sandbox.service_role_key)
    try:
        await _use(supabase.table("workspaces"))
    finally:
        await supabase.postgrest.aclose()


async def _use(table: AsyncRequestBuilder) -> None:
    inserted: Any = (await table.insert([{"slug": "a"}, {"slug": "b"}]).execute()).data
    ids = [row["id"] for row in inserted]
    chosen = table.select("slug", count=CountMethod.exact).in_("id", ids).order("slug", desc=True).limit(1)
    answer = await chosen.execute()
    assert (answer.data, answer.count) == ([{"slug": "b"}], 2)
    updated: Any = (await table.update({"name": "A"}).eq("id", ids[0]).execute()).data
    assert updated[0]["name"] == "A"
    assert (await table.select("name").eq("id", ids[0]).single().execute()).data == {"name": "A"}
    assert len((await table.delete().in_("id", ids).execute()).data) == 2
