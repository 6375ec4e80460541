"""Settings: one frozen object, read once where the process begins and passed down.

Sources, the first one wins: environment, `.env` in the working directory, a directory of secret files named
like the variables (systemd's `$CREDENTIALS_DIRECTORY`, else `PRIORITYD_SECRETS_DIR`, else `/run/secrets`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from cronsim import CronSim, CronSimError
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigurationError

_ANY_TIME = datetime(2025, 1, 3, tzinfo=UTC)
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting of the daemon; each field says its unit, default and reason."""

    model_config = SettingsConfigDict(
        env_prefix="PRIORITYD_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    supabase_url: str = Field(
        validation_alias=AliasChoices("SUPABASE_URL", "supabase_url"),
        description="The project's URL, as in https://abcdefgh.supabase.co.",
    )
    supabase_key: SecretStr = Field(
        validation_alias=AliasChoices("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "supabase_key"),
        description="The project's service_role key or a secret key (sb_secret_…). Never logged.",
    )
    gateway_key: SecretStr | None = Field(
        None,
        description="The anon or a publishable key, if the key above is the token of a role of your own: "
        "Supabase's gateway lets nobody pass by a token alone that is none of the project's keys.",
    )
    http_host: str = Field(
        "127.0.0.1", description="Address of /metrics, /livez, /readyz and /status; read-only, without login."
    )
    http_port: int = Field(9815, ge=0, le=65535, description="Port of the same; 0 takes any free one.")
    resync_schedule: str = Field(
        "0 */6 * * *",
        description="When every tracked row is looked at, as a cron expression in UTC: the safety net.",
    )
    sweep_interval_seconds: Seconds = Field(
        10.0,
        le=3600,
        description="Between searches for rows that disagree with membership; stretched by itself on a large "
        "database so that they take at most 1 % of its time. Bounds how long a lost event can matter.",
    )
    debounce_seconds: Seconds = Field(
        0.2, le=60, description="Changes of one repository closer together than this are applied together."
    )
    max_wait_seconds: Seconds = Field(
        1.0, le=300, description="The longest a change waits because others of the same repository follow it."
    )
    batch_size: int = Field(500, ge=1, le=10_000, description="Repositories per call of the database.")
    drain_seconds: Seconds = Field(
        20.0, le=600, description="After SIGTERM, the longest that waiting changes are still applied."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json: one object a line; console: for people; auto: console on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @field_validator("supabase_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        message = "must be the project's URL, as in https://abcdefgh.supabase.co"
        try:
            parts = urlsplit(value)
            plain = not (parts.username or parts.query or parts.fragment) and parts.port != 0
        except ValueError:
            raise ValueError(message) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(message)
        return value.rstrip("/")

    @field_validator("supabase_key", "gateway_key")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if not key or not key.isascii() or any(character.isspace() for character in key):
            raise ValueError("must be the key alone, on one line")
        return SecretStr(key)

    @property
    def plain_gateway_key(self) -> str | None:
        """The gateway key as text."""
        return self.gateway_key.get_secret_value() if self.gateway_key else None

    @field_validator("resync_schedule")
    @classmethod
    def _cron_expression(cls, value: str) -> str:
        try:
            CronSim(value, _ANY_TIME)
        except CronSimError as error:
            raise ValueError(f"is no cron expression of five fields: {error}") from None
        return value

    @field_validator("max_wait_seconds")
    @classmethod
    def _not_below_debounce(cls, value: float, info: Any) -> float:
        if value < info.data.get("debounce_seconds", 0):
            raise ValueError("must not be less than PRIORITYD_DEBOUNCE_SECONDS")
        return value


def load_settings() -> Settings:
    """Read the settings. Raises `ConfigurationError` naming each setting that is missing or out of range."""
    secrets = _secrets_directory()
    try:
        return Settings(_secrets_dir=secrets)
    except ValidationError as error:
        problems = "; ".join(_problem(detail) for detail in error.errors(include_input=False))
        raise ConfigurationError(f"Bad configuration: {problems}") from None


def read_key() -> str:
    """The project's key as the settings have it now. Raises `ConfigurationError`."""
    return load_settings().supabase_key.get_secret_value()


def is_in_environment(key: str) -> bool:
    """Whether the process's own environment has this key: reading the settings again can give no other."""
    return any(
        os.environ.get(name, "").strip() == key for name in variable_name("supabase_key").split(" or ")
    )


def proxy_passwords() -> tuple[str, ...]:
    """The passwords in the variables that name proxies (HTTPS_PROXY and the like): secrets as well."""
    passwords = []
    for url in getproxies().values():
        with suppress(ValueError):
            passwords.append(urlsplit(url).password)
    return tuple(password for password in passwords if password)


def variable_name(field: str) -> str:
    """The environment variable of a field, the first one where there are several."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return " or ".join(str(choice) for choice in alias.choices[:-1])
    return f"PRIORITYD_{field.upper()}"


def _secrets_directory() -> Path | None:
    for variable in ("CREDENTIALS_DIRECTORY", "PRIORITYD_SECRETS_DIR"):
        if directory := os.environ.get(variable):
            return Path(directory)
    default = Path("/run/secrets")
    return default if default.is_dir() else None


def _problem(detail: Any) -> str:
    location = str(detail["loc"][0]) if detail["loc"] else ""
    name = _name_of(location)
    if detail["type"] == "missing":
        return f"{name} is not set"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}"


def _name_of(location: str) -> str:
    for field, info in Settings.model_fields.items():
        alias = info.validation_alias
        names = {field, *(map(str, alias.choices) if isinstance(alias, AliasChoices) else ())}
        if location in names:
            return variable_name(field)
    return location.upper()
