"""The `inngest` SDK's client, made from our settings.

Facts about the SDK (0.5.19, in its source) that shape this and what uses it:

- It reads its variables from the environment only. Our settings also come from `.env` and secret files, so
  everything is passed to it, in its own order of precedence.
- Without INNGEST_DEV it is in cloud mode. In development mode any event key will do.
- A number as `request_timeout` is milliseconds; a `timedelta` is unambiguous.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

import inngest

from priorityd.daemon.settings import Settings

APP_ID: Final = "priorityd"
_REQUEST_TIMEOUT: Final = timedelta(seconds=10)
_NO_EVENT_KEY: Final = "NO_EVENT_KEY_SET"  # what the SDK sends to a development server


def make_client(settings: Settings) -> inngest.Inngest:
    """An SDK client that uses our settings and nothing from the environment."""
    dev = settings.inngest_is_dev
    event_key = settings.inngest_event_key
    signing_key = settings.inngest_signing_key
    return inngest.Inngest(
        app_id=APP_ID,
        is_production=not dev,
        event_key=event_key.get_secret_value() if event_key else _NO_EVENT_KEY if dev else None,
        signing_key=signing_key.get_secret_value() if signing_key else None,
        env=settings.inngest_env,
        api_base_url=settings.inngest_api_url,
        event_api_base_url=settings.inngest_event_api_url,
        request_timeout=_REQUEST_TIMEOUT,
        logger=logging.getLogger("inngest"),
    )
