"""Frames and bindings: parsing and writing them."""

from __future__ import annotations

import json

import pytest

from priorityd.daemon.sandbox.realtime.bindings import BadBinding, Filter, Target, read_bindings, target
from priorityd.daemon.sandbox.realtime.protocol import (
    ARRAYS,
    OBJECTS,
    Framer,
    MalformedFrame,
    Message,
    decode,
)


def test_both_versions_carry_the_same_message() -> None:
    message = Message("realtime:x", "phx_join", {"a": 1}, "2", "1")
    as_object = '{"topic":"realtime:x","event":"phx_join","payload":{"a":1},"ref":"2","join_ref":"1"}'
    assert decode(as_object, OBJECTS) == message
    assert decode('["1","2","realtime:x","phx_join",{"a":1}]', ARRAYS) == message


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", OBJECTS),
        ("[]", OBJECTS),
        ('{"topic":"t"}', OBJECTS),
        ("{}", ARRAYS),
        ('["1","2",3,"e",{}]', ARRAYS),
    ],
)
def test_anything_else_is_malformed(text: str, version: str) -> None:
    with pytest.raises(MalformedFrame):
        decode(text, version)


def test_frames_are_written_in_the_clients_version() -> None:
    objects, arrays = Framer(OBJECTS, 'realtime:"x"', "1"), Framer(ARRAYS, 'realtime:"x"', "1")
    assert json.loads(objects.reply("5", "ok", "{}")) == {
        "event": "phx_reply",
        "payload": {"response": {}, "status": "ok"},
        "ref": "5",
        "topic": 'realtime:"x"',
    }
    assert json.loads(arrays.push("e", "[]")) == ["1", None, 'realtime:"x"', "e", []]
    assert json.loads(arrays.close()) == ["1", "1", 'realtime:"x"', "phx_close", {}]
    assert json.loads(objects.close())["ref"] == "1"


@pytest.mark.parametrize(
    ("config", "meaning"),
    [
        ({"schema": "s", "table": "t"}, Target("s", "t", None)),
        ({"schema": "s"}, Target("s", "*", None)),
        ({"table": "t"}, Target("public", "t", None)),
        ({"schema": "*"}, Target("*", "*", None)),
        (
            {"schema": "s", "table": "t", "filter": "a=eq.b=c.d"},
            Target("s", "t", Filter("a", "eq", "b=c.d")),
        ),
        ({"schema": "s", "table": "t", "filter": "a=in.(1,2)"}, Target("s", "t", Filter("a", "in", "{1,2}"))),
    ],
)
def test_a_binding_means_tables_and_rows(config: dict[str, str], meaning: Target) -> None:
    (binding,) = read_bindings({"postgres_changes": [config]})
    assert target(binding) == meaning


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "No subscription params provided"),
        ({"event": "*"}, "No subscription params provided"),
        ({"schema": "s", "table": "t", "filter": "a"}, 'Error parsing `filter` params: ["a"]'),
        ({"schema": "s", "table": "t", "filter": "a=b"}, 'Error parsing `filter` params: ["b"]'),
        ({"schema": "s", "table": "t", "filter": "a=like.b"}, 'Error parsing `filter` params: ["like", "b"]'),
    ],
)
def test_a_binding_that_means_nothing_says_why(config: dict[str, str], words: str) -> None:
    (binding,) = read_bindings({"postgres_changes": [config]})
    with pytest.raises(BadBinding) as refused:
        target(binding)
    assert str(refused.value).startswith(words)


def test_the_same_binding_has_the_same_id_in_every_join() -> None:
    one, two, other = ({"event": "*", "schema": "public", "table": t} for t in ("a", "a", "b"))
    ids = [binding.id for binding in read_bindings({"postgres_changes": [one, two, other]})]
    assert ids[0] == ids[1] != ids[2]
    assert all(0 <= each < 2**27 for each in ids)


@pytest.mark.parametrize("config", [None, [], {}, {"postgres_changes": None}, {"postgres_changes": ["x"]}])
def test_a_join_without_bindings_has_none(config: object) -> None:
    assert read_bindings(config) == []
