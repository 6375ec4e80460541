"""The part of `priorityd check` about Inngest: the keys, and whether functions honour priorities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from priorityd.core.database.answers import RepositoryPriority
from priorityd.core.errors import ExitCode, InngestKeyRefusedError, PermanentError, PriorityError
from priorityd.core.inngest.run_priority import run_priority_expression, why_without_effect
from priorityd.core.jobs.events import EVENT_NAMES, Job, event_data
from priorityd.core.priorities import PRIORITIES, Priority
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.cli.finding import Finding
from priorityd.daemon.inngest.api import InngestApi, InngestFunction, open_inngest_api
from priorityd.daemon.settings import Settings

_STEP: Final = "run priority"
_SIGNING_KEY: Final = "signkey-"
_AGAIN: Final = "Try again in a minute."


async def inngest_findings(settings: Settings) -> AsyncIterator[Finding]:
    """No findings if nothing is set for Inngest."""
    if not settings.inngest_sends:
        half = [name for name, value in _half_set(settings).items() if value]
        if half:
            text = f"{_and(half)} set, but no events are sent without INNGEST_EVENT_KEY or INNGEST_DEV"
            remedy = "Set it to queue jobs and announce changes, or remove the other settings."
            yield Finding("Inngest", "warning", text, remedy, "export INNGEST_EVENT_KEY=…")
        return
    async with open_inngest_api(settings) as api:
        yield await _event_key(settings, api)
        async for finding in _run_priorities(settings, api):
            yield finding


def _half_set(settings: Settings) -> dict[str, object]:
    """The settings that have no effect without an event key, with the values of those that are not secret."""
    shown = {
        "INNGEST_BASE_URL": settings.inngest_base_url,
        "INNGEST_API_BASE_URL": settings.inngest_api_base_url,
        "INNGEST_EVENT_API_BASE_URL": settings.inngest_event_api_base_url,
        "INNGEST_ENV": settings.inngest_env,
    }
    return {"INNGEST_SIGNING_KEY": settings.inngest_signing_key} | {
        f"{name} ({value})": value for name, value in shown.items()
    }


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"


def _address_question(settings: Settings, own: str) -> str:
    """A question about the setting from which Inngest's address comes."""
    names = {own: getattr(settings, own.lower()), "INNGEST_BASE_URL": settings.inngest_base_url}
    used = next((name for name, value in names.items() if value), None)
    if used:
        return f"Is that the address of Inngest? It comes from {used}."
    if settings.inngest_is_dev:
        return "Is the development server running? The address comes from INNGEST_DEV."
    return _AGAIN


async def _event_key(settings: Settings, api: InngestApi) -> Finding:
    step, url = "Inngest event key", settings.inngest_event_api_url
    key = settings.inngest_event_key
    if key is not None and key.get_secret_value().startswith(_SIGNING_KEY):
        text = "INNGEST_EVENT_KEY: it is a signing key, not an event key"
        remedy = "Copy the event key from Inngest's dashboard; the signing key is for INNGEST_SIGNING_KEY."
        return Finding(step, "failed", text, remedy, "export INNGEST_EVENT_KEY=…", ExitCode.KEY_REFUSED)
    try:
        await api.check_event_key()
    except InngestKeyRefusedError as error:
        text = f"{error}, at {url}"
        remedy = "Copy the event key again from Inngest's dashboard, in the environment of your functions."
        return Finding(step, "failed", text, remedy, "export INNGEST_EVENT_KEY=…", error.exit_code)
    except PriorityError as error:
        remedy = _address_question(settings, "INNGEST_EVENT_API_BASE_URL")
        text = str(error) if url in str(error) else f"{error}, at {url}"
        return Finding(step, "failed", text, remedy, "priorityd check", error.exit_code)
    return Finding(step, "ok", f"{url} accepts it")


async def _run_priorities(settings: Settings, api: InngestApi) -> AsyncIterator[Finding]:
    if settings.inngest_signing_key is None and not settings.inngest_is_dev:
        text = "the functions' priority.run can't be checked without INNGEST_SIGNING_KEY"
        remedy = "Set it to check that as well."
        yield Finding(_STEP, "skipped", text, remedy, "export INNGEST_SIGNING_KEY=…")
        return
    key = "Inngest signing key"
    try:
        functions = await api.functions()
    except InngestKeyRefusedError as error:
        text = f"{error}, at {settings.inngest_api_url}"
        remedy = "Copy the signing key again from Inngest's dashboard, in the environment of your functions."
        yield Finding(key, "failed", text, remedy, "export INNGEST_SIGNING_KEY=…", error.exit_code)
    except PermanentError as error:
        yield Finding(_STEP, "skipped", str(error), "Compare priority.run with docs/application.md by hand.")
    except PriorityError as error:
        remedy = _address_question(settings, "INNGEST_API_BASE_URL")
        yield Finding(_STEP, "skipped", str(error), remedy, "priorityd check")
    else:
        if settings.inngest_signing_key is not None:
            yield Finding(key, "ok", f"{settings.inngest_api_url} accepts it")
        yield judge(functions, settings.event_priority)


def judge(functions: Sequence[InngestFunction], form: PriorityForm) -> Finding:
    """Whether the functions that our jobs start have a `priority.run` that starts them by priority."""
    ours = [each for each in functions if set(each.events) & set(EVENT_NAMES.values())]
    if not ours:
        names = ", ".join(sorted(EVENT_NAMES.values()))
        text = f"no Inngest function is triggered by the events of jobs ({names})"
        remedy = (
            "Add a function that these events trigger, and sync its app with Inngest (docs/application.md)."
        )
        return Finding(_STEP, "warning", text, remedy, "priorityd check")
    events = _events(form)
    idle = [
        f"{each.app_id}/{each.id} ({why})" for each in ours if (why := _why_idle(each.run_priority, events))
    ]
    if idle:
        return Finding(
            _STEP,
            "warning",
            f"priorities have no effect in {', '.join(idle)}",
            f"Set priority.run of these functions to: {run_priority_expression()}",
            "priorityd check",
        )
    count = "1 function takes jobs" if len(ours) == 1 else f"{len(ours)} functions take jobs"
    return Finding(_STEP, "ok", f"{count}, with a priority.run that works")


def _events(form: PriorityForm) -> dict[Priority, dict[str, Any]]:
    job = Job("reviews", UUID(int=0))
    rows = {
        each: RepositoryPriority(each, is_workspace_repo=each == "high", workspace_count=int(each == "high"))
        for each in PRIORITIES
    }
    return {each: {"data": event_data(job, row, form)} for each, row in rows.items()}


def _why_idle(expression: str | None, events: Mapping[Priority, Mapping[str, Any]]) -> str | None:
    if expression is None:
        return "it has no priority.run"
    why = why_without_effect(expression, events)
    return f"{expression.strip()!r:.120} {why}" if why else None
