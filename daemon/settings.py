"""Settings: one frozen object, read once where the process starts and passed down.

Sources, the first one wins: environment, `.env` in the working directory, a directory of secret files named
like the variables (systemd's `$CREDENTIALS_DIRECTORY`, else `PRIORITYD_SECRETS_DIR`, else `/run/secrets`).
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from priorityd.core.errors import ConfigurationError
from priorityd.core.vocabulary import PriorityForm, QueueMode
from priorityd.daemon.setting_types import (
    CronExpression,
    InngestServer,
    InngestUrl,
    Key,
    ProjectUrl,
    Seconds,
    SigningKey,
)

_ENV_FILE: Final = Path(".env")
_DEFAULT_SECRETS: Final = Path("/run/secrets")
_INNGEST_DEV_SERVER: Final = "http://127.0.0.1:8288"


class Settings(BaseSettings):
    """Every setting of the daemon; each field states its unit, default and reason."""

    model_config = SettingsConfigDict(
        env_prefix="PRIORITYD_",
        env_file=_ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    supabase_url: ProjectUrl = Field(
        validation_alias=AliasChoices("SUPABASE_URL", "supabase_url"),
        description="The project's URL, as in https://abcdefgh.supabase.co.",
    )
    supabase_key: Key = Field(
        validation_alias=AliasChoices("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "supabase_key"),
        description="The project's service_role key or a secret key (sb_secret_…). Never logged.",
    )
    gateway_key: Key | None = Field(
        None,
        description="The anon key or a publishable key, if the key above is a token for a role of your own: "
        "Supabase's gateway demands one of the project's keys as well.",
    )
    inngest_event_key: Key | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_EVENT_KEY", "inngest_event_key"),
        description="Key of Inngest's event API, needed to send events. Never logged.",
    )
    inngest_signing_key: SigningKey | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_SIGNING_KEY", "inngest_signing_key"),
        description="Inngest's signing key, needed to offer the daemon's function to Inngest. Never logged.",
    )
    inngest_dev: InngestServer = Field(
        None,
        validation_alias=AliasChoices("INNGEST_DEV", "inngest_dev"),
        description="1, or the server's URL, to use an Inngest development server, which needs no keys.",
    )
    inngest_base_url: InngestUrl | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_BASE_URL", "inngest_base_url"),
        description="URL of a self-hosted Inngest, for its API and its event API.",
    )
    inngest_api_base_url: InngestUrl | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_API_BASE_URL", "inngest_api_base_url"),
        description="URL of the API alone; it does not redirect events.",
    )
    inngest_event_api_base_url: InngestUrl | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_EVENT_API_BASE_URL", "inngest_event_api_base_url"),
        description="URL of the event API alone.",
    )
    inngest_env: str | None = Field(
        None,
        validation_alias=AliasChoices("INNGEST_ENV", "inngest_env"),
        description="Name of a branch environment of Inngest.",
    )
    http_host: str = Field(
        "127.0.0.1",
        description="Address for /metrics, /livez, /readyz and /status, which are read-only and need no "
        "login.",
    )
    http_port: int = Field(
        9815, ge=0, le=65535, description="Port for these endpoints; 0 means any free one."
    )
    resync_schedule: CronExpression = Field(
        "0 */6 * * *",
        description="When every tracked row is checked, as a safety net: a cron expression, in UTC.",
    )
    sweep_interval_seconds: Seconds = Field(
        10.0,
        le=3600,
        description="Time between sweeps, which find rows that disagree with membership. It is extended "
        "automatically on a large database so that they take at most 1 % of its time. It limits how long a "
        "lost event goes unnoticed.",
    )
    debounce_seconds: Seconds = Field(
        0.2,
        le=60,
        description="Changes of one repository that follow each other within this time are applied together.",
    )
    max_wait_seconds: Seconds = Field(
        1.0,
        le=300,
        description="The longest time that a change waits while others of the same repository follow.",
    )
    batch_size: int = Field(
        500, ge=1, le=10_000, description="The maximum number of repositories per call to the database."
    )
    dispatch_changes: bool = Field(
        True, description="Whether priority changes are announced to Inngest, if events can be sent."
    )
    sync_new_workspace_repositories: bool = Field(
        True,
        description="Whether a repository that has just become a workspace repository is announced and also "
        "queued for a sync at priority 100, so that the team that added it soon sees fresh data.",
    )
    dispatch_claim_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = Field(
        60.0,
        description="How long a daemon's claim on changes to announce lasts. If the daemon dies, another one "
        "takes them over after this time.",
    )
    host_sync_function: bool = Field(
        True,
        description="Whether the daemon connects to Inngest to answer workspace/priorities.sync, if it has "
        "the signing key.",
    )
    change_retention_days: int = Field(90, ge=1, le=36500, description="How long priority changes are kept.")
    queue_mode: QueueMode = Field(
        "direct",
        description="How jobs are queued unless the caller says otherwise: direct, sent to Inngest at once; "
        "or ordered, kept in the database until a daemon releases them in strict order.",
    )
    release_jobs: bool = Field(
        True, description="Whether the daemon releases ordered jobs, if events can be sent."
    )
    jobs_in_flight: int = Field(
        10,
        ge=1,
        le=10_000,
        description="The maximum number of ordered jobs of each type in flight, over all daemons. Set it to "
        "the function's concurrency: more would wait in Inngest, where a later priority does not reach them.",
    )
    job_deadline_seconds: Annotated[float, Field(ge=1, le=31_622_400, allow_inf_nan=False)] = Field(
        86_400.0,
        description="The time within which an ordered job should be done. When five sixths of it have "
        "passed, a job of a lower priority is promoted.",
    )
    job_lease_seconds: Annotated[float, Field(ge=60, le=604_800, allow_inf_nan=False)] = Field(
        3600.0,
        description="How long an ordered job may be in flight without an end in background_jobs. After that "
        "it counts as lost, and is sent again under the same event id, alongside the others.",
    )
    job_most_leases: int = Field(
        3,
        ge=1,
        le=1000,
        description="The number of leases without a report after which an ordered job counts as failed.",
    )
    drain_seconds: Seconds = Field(
        20.0,
        le=600,
        description="The longest time for which waiting changes are still applied after SIGTERM.",
    )
    event_priority: PriorityForm = Field(
        "score",
        description="The form of data.priority in events: score (100, 50, 25), or word (high, medium, low, "
        "with the score in data.priorityScore) for consumers that already read it as a word.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="json: one object per line; console: for people; auto: console on a terminal, else json.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level logged."
    )

    @property
    def inngest_is_dev(self) -> bool:
        """Whether Inngest is a development server, as the SDK decides it."""
        return self.inngest_dev is not None and self.inngest_dev.lower() not in ("false", "0")

    @property
    def inngest_sends(self) -> bool:
        """Whether events can be sent."""
        return self.inngest_event_key is not None or self.inngest_is_dev

    @property
    def inngest_hosts(self) -> bool:
        """Whether the daemon can offer functions to Inngest."""
        return self.inngest_signing_key is not None or self.inngest_is_dev

    @property
    def inngest_api_url(self) -> str:
        """Where Inngest's API is, by the SDK's order of precedence."""
        return self.inngest_api_base_url or self._inngest_url("https://api.inngest.com")

    @property
    def inngest_event_api_url(self) -> str:
        """Where Inngest's event API is, by the SDK's order of precedence."""
        return self.inngest_event_api_base_url or self._inngest_url("https://inn.gs")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        keys = (self.supabase_key, self.gateway_key, self.inngest_event_key, self.inngest_signing_key)
        return tuple(key.get_secret_value() for key in keys if key is not None)

    @property
    def http_url(self) -> str:
        """Where the endpoints are."""
        return url_of(self.http_host, self.http_port)

    def _inngest_url(self, cloud: str) -> str:
        if self.inngest_base_url:
            return self.inngest_base_url
        if not self.inngest_is_dev:
            return cloud
        dev = self.inngest_dev or ""
        return dev if "://" in dev else _INNGEST_DEV_SERVER

    @property
    def plain_gateway_key(self) -> str | None:
        """The gateway key as text."""
        return self.gateway_key.get_secret_value() if self.gateway_key else None

    @field_validator("max_wait_seconds")
    @classmethod
    def _not_below_debounce(cls, value: float, info: Any) -> float:
        if value < info.data.get("debounce_seconds", 0):
            raise ValueError("must not be less than PRIORITYD_DEBOUNCE_SECONDS")
        return value


def url_of(host: str, port: int) -> str:
    """Where something is served; an IPv6 address has brackets in a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def load_settings() -> Settings:
    """Read the settings. Raises `ConfigurationError` naming each setting that is missing or out of range."""
    secrets = secrets_directory()
    try:
        with warnings.catch_warnings():
            # For example, of a secret that is a directory.
            warnings.simplefilter("error", UserWarning)
            return Settings(_secrets_dir=secrets)
    except (SettingsError, OSError, UnicodeError, UserWarning) as error:
        raise ConfigurationError(f"Bad configuration: {_unreadable(error, secrets)}") from None
    except ValidationError as error:
        problems = "; ".join(_problem(detail) for detail in error.errors(include_input=False))
        raise ConfigurationError(f"Bad configuration: {problems}") from None


def proxy_passwords() -> tuple[str, ...]:
    """The passwords in the variables that name proxies (HTTPS_PROXY and the like): secrets as well."""
    passwords = []
    for url in getproxies().values():
        with suppress(ValueError):
            passwords.append(urlsplit(url).password)
    return tuple(password for password in passwords if password)


def variable_name(field: str) -> str:
    """The environment variable of a field, the first where there are several."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return " or ".join(str(choice) for choice in alias.choices[:-1])
    return f"PRIORITYD_{field.upper()}"


def shown(default: object) -> str:
    """A default as somebody would type it."""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) and default < 1_000_000 else str(default)


def secrets_directory() -> Path | None:
    """The directory of secrets that is read, None if there is none.

    Raises `ConfigurationError` if a variable names one that can't be read.
    """
    for variable in ("CREDENTIALS_DIRECTORY", "PRIORITYD_SECRETS_DIR"):
        if directory := os.environ.get(variable):
            return _checked_directory(variable, Path(directory))
    # Nobody has named this one: where it is closed, it is meant for others.
    with suppress(OSError):
        next(_DEFAULT_SECRETS.iterdir(), None)
        return _DEFAULT_SECRETS
    return None


def _checked_directory(variable: str, directory: Path) -> Path:
    try:
        next(directory.iterdir(), None)
    except OSError as error:
        raise ConfigurationError(f"{variable}: can't read {directory}: {error.strerror}") from None
    return directory


def _unreadable(error: Exception, secrets: Path | None) -> str:
    """Which file can't be read, and why: the error itself may lack that."""
    for path in (_ENV_FILE, *(secrets.iterdir() if secrets else ())):
        try:
            if path.is_file():
                path.read_text(encoding="utf-8")
        except OSError as unreadable:
            return f"can't read {path}: {unreadable.strerror}"
        except UnicodeError:
            return f"{path} is not UTF-8 text"
    return str(error.__cause__ or error)


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
