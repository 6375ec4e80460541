"""Which jobs can't be queued, and why: the same in either mode.

`explain_refused_job` in PostgreSQL gives the same reasons for what jsonb can hold. What it can't hold is
found only here: a NUL, an unpaired surrogate, NaN.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from priorityd.core.inngest.outgoing_events import MAX_EVENT_BYTES
from priorityd.core.jobs.events import Job

MAX_LEVELS: Final = 100
"""Nesting of objects and arrays below `data`. Parsers of other languages give up at some hundreds."""
_LARGEST: Final = int(sys.float_info.max)
"""JSON numbers are doubles in Inngest and in JavaScript."""


def split_jobs(jobs: Iterable[Job]) -> tuple[list[Job], list[tuple[Job, str]]]:
    """The jobs that can be queued, in order, and those that can't, with the reason."""
    accepted: list[Job] = []
    refused: list[tuple[Job, str]] = []
    known: dict[int, str | None] = {}  # many jobs have the same data
    for job in jobs:
        if id(job.data) not in known:
            known[id(job.data)] = why_data_refused(job.data)
        reason = known[id(job.data)] or _why_text_refused(job)
        if reason is None:
            accepted.append(job)
        else:
            refused.append((job, reason))
    return accepted, refused


def why_data_refused(data: object) -> str | None:
    """Why this can't be a job's data, or None if it can; for its size, see `why_too_large`."""
    if not isinstance(data, Mapping):
        return "has data that is not an object"
    waiting: list[tuple[object, int]] = [(data, 0)]
    while waiting:
        value, level = waiting.pop()
        if level > MAX_LEVELS:
            return f"has data that is nested deeper than {MAX_LEVELS} levels"
        if isinstance(value, Mapping):
            waiting += ((each, level + 1) for each in value.values())
            reason = next(filter(None, map(_why_key_refused, value)), None)
        elif isinstance(value, list | tuple):
            waiting += ((each, level + 1) for each in value)
            reason = None
        else:
            reason = _why_value_refused(value)
        if reason is not None:
            return reason
    return None


def size_of(job: Job) -> int:
    """The size of the job's data as JSON, in bytes. The data must have been accepted already."""
    return len(json.dumps(job.data, ensure_ascii=False, default=dict).encode())


def why_too_large(size: int) -> str | None:
    """Why data of this size, in bytes, can't be queued, or None if it can."""
    return f"has data of more than {MAX_EVENT_BYTES} bytes" if size > MAX_EVENT_BYTES else None


def _why_text_refused(job: Job) -> str | None:
    if job.repository_name is not None and not isinstance(job.repository_name, str):
        return "has a repository_name that is not text"
    for text in (job.repository_name, job.id):
        if text is not None and (reason := _why_not_unicode(text)):
            return reason.replace("data", "a name or an id", 1)
    return None


def _why_key_refused(key: object) -> str | None:
    if not isinstance(key, str):
        return f"has data with a key that is not text: {key!r:.40}"
    return _why_not_unicode(key)


def _why_value_refused(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _why_not_unicode(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "has data with a number that is NaN or infinite"
    if isinstance(value, int | float):
        return "has data with a number that is too large" if abs(value) > _LARGEST else None
    return f"has data that is not JSON: {type(value).__name__}"


def _why_not_unicode(text: str) -> str | None:
    if "\0" in text:
        return "has data with the character NUL, which PostgreSQL can't hold"
    # The quick check first: it suffices for nearly all text.
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        return "has data with an unpaired surrogate, which is not valid Unicode"
    return None
