"""The part of `priorityd check` about Inngest: the event key, and whether functions heed priorities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from priorityd.core.errors import InngestKeyRefusedError, PermanentError, PriorityError
from priorityd.core.inngest.run_priority import has_no_effect, run_priority_expression
from priorityd.core.jobs.events import EVENT_NAMES
from priorityd.core.vocabulary import PriorityForm
from priorityd.daemon.cli.finding import Finding
from priorityd.daemon.inngest.api import InngestApi, InngestFunction, open_inngest_api
from priorityd.daemon.settings import Settings

_STEP: Final = "run priority"
_AGAIN: Final = "Try again in a minute."


async def inngest_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Nothing is looked at, and nothing said, without settings for Inngest."""
    if not settings.inngest_sends:
        return
    async with open_inngest_api(settings) as api:
        yield await _event_key(settings, api)
        yield await _run_priorities(settings, api)


async def _event_key(settings: Settings, api: InngestApi) -> Finding:
    step = "Inngest event key"
    try:
        await api.check_event_key()
    except InngestKeyRefusedError as error:
        remedy = (
            "Copy the event key anew from Inngest's dashboard, of the environment that your functions are in."
        )
        return Finding(step, "failed", str(error), remedy, "export INNGEST_EVENT_KEY=…", error.exit_code)
    except PriorityError as error:
        return Finding(step, "failed", str(error), _AGAIN, "priorityd check", error.exit_code)
    return Finding(step, "ok", f"{settings.inngest_event_api_url} accepts it")


async def _run_priorities(settings: Settings, api: InngestApi) -> Finding:
    if settings.inngest_signing_key is None and not settings.inngest_is_dev:
        text = "Inngest is not asked for the functions' priority.run: that takes INNGEST_SIGNING_KEY"
        remedy = "Set it to have that looked at as well."
        return Finding(_STEP, "skipped", text, remedy, "export INNGEST_SIGNING_KEY=…")
    try:
        functions = await api.functions()
    except InngestKeyRefusedError as error:
        remedy = "Copy the signing key anew from Inngest's dashboard."
        return Finding(_STEP, "warning", str(error), remedy, "export INNGEST_SIGNING_KEY=…")
    except PermanentError as error:
        return Finding(_STEP, "skipped", str(error), "Compare priority.run with the README by hand.")
    except PriorityError as error:
        return Finding(_STEP, "skipped", str(error), _AGAIN, "priorityd check")
    return judge(functions, settings.event_priority)


def judge(functions: Sequence[InngestFunction], form: PriorityForm) -> Finding:
    """Whether those that our jobs start have a `priority.run` that can have an effect."""
    ours = [each for each in functions if set(each.events) & set(EVENT_NAMES.values())]
    if not ours:
        return Finding(_STEP, "warning", "no function of Inngest's is started by a job of ours")
    idle = [
        f"{each.app_id}/{each.id} ({why})" for each in ours if (why := _why_idle(each.run_priority, form))
    ]
    if idle:
        return Finding(
            _STEP,
            "warning",
            f"priorities have no effect on {', '.join(idle)}",
            f"Set priority.run of these functions to: {run_priority_expression()}",
        )
    return Finding(_STEP, "ok", f"{len(ours)} functions take jobs, each with a priority.run of its own")


def _why_idle(expression: str | None, form: PriorityForm) -> str | None:
    if expression is None:
        return "it has no priority.run"
    if has_no_effect(expression, form):
        return f"{expression.strip()!r:.120} comes to nothing with a {form}"
    return None
