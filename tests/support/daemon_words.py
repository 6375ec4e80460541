"""Waiting for what a daemon says of itself."""

from __future__ import annotations

from typing import Final

from tests.support.daemon_process import Daemon, eventually

_LONG_SECONDS: Final = 120
"""What takes half a minute on a quiet machine."""


def page_of(daemon: Daemon) -> str:
    """The URL of its page."""
    return f"http://127.0.0.1:{daemon.port}/"


async def says(daemon: Daemon, text: str) -> None:
    """Wait until the headline begins with this."""

    async def does() -> bool:
        answer = await daemon.get("/status")
        return answer is not None and str(answer.json().get("headline", "")).startswith(text)

    await eventually(does, _LONG_SECONDS)


async def knows(daemon: Daemon, *problems: str) -> None:
    """Wait until these are among the problems."""

    async def does() -> bool:
        return set(problems) <= {each["name"] for each in (await daemon.status()).get("problems", ())}

    await eventually(does, _LONG_SECONDS)
