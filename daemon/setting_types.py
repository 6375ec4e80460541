"""The types of settings: what a URL, a key or a cron expression must look like."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, SecretStr

_INNGEST_URL_MESSAGE: Final = "must be a URL, as in http://127.0.0.1:8288"
_SIGNING_KEY_PREFIX: Final = re.compile(r"^signkey-\w+-")
_ANY_TIME: Final = datetime(2025, 1, 3, tzinfo=UTC)


def _project_url(value: str) -> str:
    return _checked_url(value.strip(), "must be the project's URL, as in https://abcdefgh.supabase.co")


def _inngest_url(value: str) -> str:
    return _checked_url(value.strip(), _INNGEST_URL_MESSAGE)


def _flag_or_url(value: str | None) -> str | None:
    word = (value or "").strip()
    return (_checked_url(word, _INNGEST_URL_MESSAGE) if ":" in word else word) or None


def _checked_url(value: str, message: str) -> str:
    try:
        parts = urlsplit(value)
        plain = not ("@" in parts.netloc or parts.query or parts.fragment) and parts.port != 0
    except ValueError:
        raise ValueError(message) from None
    # Blanks, and invisible characters copied from a page, would become part of the host's name.
    plain = plain and value.isprintable() and " " not in value
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise ValueError(message)
    return value.rstrip("/")


def _one_line(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    # What can't be sent in a header would be quoted by the error that says so.
    sendable = key.isascii() and key.isprintable()
    if not key or not sendable or any(each in " \"'" for each in key):
        raise ValueError("must be the key alone, on one line and without quotes")
    return SecretStr(key)


def _hexadecimal(value: SecretStr) -> SecretStr:
    # The SDK (0.5.19, `_internal/transforms.py`) takes what follows the prefix for hexadecimal.
    try:
        bytes.fromhex(_SIGNING_KEY_PREFIX.sub("", value.get_secret_value()))
    except ValueError:
        raise ValueError("must look like signkey-prod-0123abcd…") from None
    return value


def _cron_expression(value: str) -> str:
    # CronSim also accepts six fields; the first is then for seconds, which would be a surprise.
    if len(value.split()) != 5:
        raise ValueError("must be a cron expression with five fields")
    try:
        CronSim(value, _ANY_TIME)
    except CronSimError as error:
        raise ValueError(f"must be a cron expression with five fields: {error}") from None
    return value


Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ProjectUrl: TypeAlias = Annotated[str, AfterValidator(_project_url)]
InngestUrl: TypeAlias = Annotated[str, AfterValidator(_inngest_url)]
InngestServer: TypeAlias = Annotated[str | None, AfterValidator(_flag_or_url)]
"""A development server of Inngest: its URL, or whether there is one."""
Key: TypeAlias = Annotated[SecretStr, AfterValidator(_one_line)]
SigningKey: TypeAlias = Annotated[Key, AfterValidator(_hexadecimal)]
CronExpression: TypeAlias = Annotated[str, AfterValidator(_cron_expression)]
