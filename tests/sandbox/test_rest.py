"""The contract of PostgREST's RPCs, as far as a caller can notice it: answers, arguments, methods."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.support.patience import PATIENCE_SECONDS
from tests.support.rest_calls import Api

if TYPE_CHECKING:
    from tests.support.database import Database

_ID = "1f899c29-cab1-47da-928c-f8f2cede25eb"
_RESULTS: list[tuple[str, dict[str, Any], str]] = [
    ("add", {"a": 1}, "11"),
    ("add", {"a": 1, "b": 2}, "3"),
    ("numbers", {"n": 3}, "[1,2,3]"),
    ("numbers", {"n": 0}, "[]"),
    ("pairs", {"n": 2}, '[{"x":1,"y":"n1"},{"x":2,"y":"n2"}]'),
    ("one_pair", {}, '{"x":1,"y":"one"}'),
    ("null_value", {}, "null"),
    ("percent", {"a%s": 5}, "5"),
    (
        "echo",
        {"value": {"a": [1, None]}, "ids": [_ID], "size": "xl"},
        f'[{{"a":[1,null]}},["{_ID}"],"xl"]',
    ),
]


async def test_results_are_json_in_the_shape_of_the_return_type(api: Api) -> None:
    for function, arguments, text in _RESULTS:
        response = await api.call(function, arguments)
        assert (response.status_code, response.json()) == (200, json.loads(text))
        assert response.headers["content-type"] == "application/json; charset=utf-8"


async def test_a_function_that_returns_nothing_answers_204(api: Api) -> None:
    response = await api.call("nothing")
    assert (response.status_code, response.content) == (204, b"")


async def test_sets_are_cut_at_1000_rows(api: Api) -> None:
    response = await api.call("numbers", {"n": 1500})
    assert response.json() == list(range(1, 1001))
    assert response.headers["content-range"] == "0-999/*"


async def test_a_single_object_can_be_asked_for(api: Api) -> None:
    accept = "application/vnd.pgrst.object+json"
    one = await api.call("pairs", {"n": 1}, Accept=accept)
    two = await api.call("pairs", {"n": 2}, Accept=accept)
    assert (one.status_code, one.json()) == (200, {"x": 1, "y": "n1"})
    assert (two.status_code, two.json()["code"]) == (406, "PGRST116")
    assert two.json()["details"] == "The result contains 2 rows"


async def test_arguments_must_be_those_of_the_function(api: Api) -> None:
    response = await api.call("add", {"a": 1, "c": 3})
    assert response.status_code == 404
    assert response.json() == {
        "code": "PGRST202",
        "details": "Searched for the function public.add with parameters a, c or with a single unnamed "
        "json/jsonb parameter, but no matches were found in the schema cache.",
        "hint": "Perhaps you meant to call the function public.add(a, b)",
        "message": "Could not find the function public.add(a, c) in the schema cache",
    }


async def test_an_unknown_function_comes_with_the_nearest_name(api: Api) -> None:
    response = await api.call("number")
    assert (response.status_code, response.json()["code"]) == (404, "PGRST202")
    assert (
        response.json()["message"]
        == "Could not find the function public.number without parameters in the schema cache"
    )
    assert response.json()["hint"] == "Perhaps you meant to call the function public.numbers"


async def test_overloads_that_differ_in_type_only_cannot_be_told_apart(api: Api) -> None:
    response = await api.call("overloaded", {"a": 1})
    assert (response.status_code, response.json()["code"]) == (300, "PGRST203")


async def test_a_value_of_the_wrong_type_is_400(api: Api) -> None:
    response = await api.call("echo", {"value": 1, "ids": ["no uuid"]})
    assert (response.status_code, response.json()["code"]) == (400, "22P02")


async def test_a_new_function_is_unknown_until_the_schema_is_reloaded(api: Api, database: Database) -> None:
    session = database.connect()
    session.execute("create function public.fresh() returns integer language sql as 'select 1'")
    assert (await api.call("fresh")).status_code == 404
    session.execute("notify pgrst, 'reload schema'")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await api.call("fresh")).status_code != 200:
            pass
    session.execute("drop function public.fresh()")
    gone = await api.call("fresh")
    assert (gone.status_code, gone.json()["code"]) == (404, "42883")


async def test_statement_timeouts_are_the_functions_own_or_the_roles(api: Api, anon: Api) -> None:
    assert (await api.call("patience")).json() == "8s"
    assert (await anon.call("patience")).json() == "3s"
    assert (await api.call("own_patience")).json() == "77s"
    late = await api.call("impatient")
    assert (late.status_code, late.json()["code"]) == (500, "57014")
    assert late.json()["message"] == "canceling statement due to statement timeout"


async def test_get_takes_arguments_from_the_query_and_may_not_write(api: Api) -> None:
    response = await api.request("GET", "/rest/v1/rpc/add", params={"a": "1", "b": "2"})
    assert (response.status_code, response.json()) == (200, 3)
    response = await api.request("GET", "/rest/v1/rpc/echo", params={"value": '{"a":1}', "ids": "{}"})
    assert response.json() == [{"a": 1}, [], None]
    response = await api.request("GET", "/rest/v1/rpc/echo", params={"value": "{"})
    assert (response.status_code, response.json()["code"]) == (400, "22P02")
    response = await api.request("GET", "/rest/v1/rpc/writes")
    assert (response.status_code, response.json()["code"]) == (405, "25006")
    response = await api.request("HEAD", "/rest/v1/rpc/add", params={"a": "1"})
    assert (response.status_code, response.content) == (200, b"")


async def test_other_methods_are_refused(api: Api) -> None:
    response = await api.request("PATCH", "/rest/v1/rpc/add", json={"a": 1})
    assert (response.status_code, response.json()["code"]) == (405, "PGRST101")


async def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    for body in ('{"a":', "[1]", '"a"'):
        headers = {"Content-Type": "application/json"}
        response = await api.request("POST", "/rest/v1/rpc/add", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "PGRST102")


async def test_what_is_not_served_says_so(api: Api) -> None:
    path = await api.request("GET", "/rest/v1/repositories/1")
    assert (path.status_code, path.json()["code"]) == (404, "PGRST125")
    assert "/rest/v1/rpc/" in path.json()["hint"]
    filtered = await api.request("POST", "/rest/v1/rpc/pairs?x=eq.1", json={"n": 2})
    assert (filtered.status_code, filtered.json()["code"]) == (400, "PGRST100")
    schema = await api.call("add", {"a": 1}, **{"Content-Profile": "private"})
    assert (schema.status_code, schema.json()["code"]) == (406, "PGRST106")
