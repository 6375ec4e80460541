"""Messages selected by their event are read as the `realtime` package itself reads them."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from realtime import AsyncRealtimeClient
from realtime._async import client
from realtime.message import PostgresChangesMessage, ServerMessage, ServerMessageAdapter

from priorityd.daemon.stream.realtime_messages import MESSAGES_BY_EVENT, read_messages_by_event

_RECORDINGS = sorted((Path(__file__).parent.parent / "sandbox" / "frames").glob("*.jsonl"))
_WRONG: tuple[Any, ...] = (None, 7, "", [], {}, "phx_reply", {"status": "ok", "response": {}})


def recorded() -> list[Any]:
    steps = [json.loads(line) for path in _RECORDINGS for line in path.read_text().splitlines()]
    return [step["recv"] for step in steps if "recv" in step]


def read(adapter: TypeAdapter[ServerMessage], frame: Any) -> Any:
    """What is read, as plain values and the name of the kind; None if it is refused."""
    try:
        message = adapter.validate_json(json.dumps(frame))
    except ValidationError:
        return None
    is_change = isinstance(message, PostgresChangesMessage)
    return "change" if is_change else type(message).__name__, message.model_dump()


def test_the_client_looks_for_its_reader_where_it_is_put() -> None:
    assert "ServerMessageAdapter" in AsyncRealtimeClient._listen.__code__.co_names
    read_messages_by_event()
    assert client.__dict__["ServerMessageAdapter"] is MESSAGES_BY_EVENT


def test_recorded_messages_of_every_kind_are_read_alike() -> None:
    read_alike = [(read(ServerMessageAdapter, frame), read(MESSAGES_BY_EVENT, frame)) for frame in recorded()]
    assert all(theirs == ours for theirs, ours in read_alike)
    kinds = {theirs[0] for theirs, _ in read_alike if theirs}
    assert {"change", "SystemMessage", "ReplyMessage", "ChannelCloseMessage"} <= kinds


@pytest.mark.parametrize("seed", range(5))
def test_what_is_wrong_with_a_message_is_refused_alike(seed: int) -> None:
    chance = random.Random(seed)
    frames = [spoilt(frame, chance) for frame in recorded() for _ in range(10)]
    compared = [(read(ServerMessageAdapter, frame), read(MESSAGES_BY_EVENT, frame)) for frame in frames]
    assert all(theirs == ours for theirs, ours in compared)
    refused = sum(theirs is None for theirs, _ in compared)
    assert 0 < refused < len(compared)


def spoilt(frame: Any, chance: random.Random) -> Any:
    """A copy in which one value, at any depth, is another or missing."""
    spoilt_frame = copy.deepcopy(frame)
    place = spoilt_frame
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not place[key] or not isinstance(place[key], dict | list) or chance.random() < 0.3:
            break
        place = place[key]
    if isinstance(place, dict) and chance.random() < 0.5:
        del place[key]
    else:
        place[key] = chance.choice(_WRONG)
    return spoilt_frame
