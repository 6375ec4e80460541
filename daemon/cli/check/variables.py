"""The part of `priorityd check` about settings: those that can't be used, and variables that are unknown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from priorityd.core.errors import ConfigurationError
from priorityd.daemon.cli.finding import Finding, from_error
from priorityd.daemon.settings import Settings, secrets_directory, variable_name

_STEP: Final = "settings"
_OURS: Final = "PRIORITYD_"
_NAMED: Final = re.compile(
    r"\b((?:SUPABASE|INNGEST|PRIORITYD)_[A-Z0-9_]+)(?: or [A-Z0-9_]+)?( is not set|: )"
)
_LINE: Final = re.compile(r"^\s*(?:export\s+)?(PRIORITYD_\w+)\s*=", re.MULTILINE | re.IGNORECASE)
_ENV_FILE: Final = Path(".env")
_ENVIRONMENT: Final = "the environment"


def bad_settings(error: ConfigurationError) -> Finding:
    """Settings that keep anything from starting; for a missing one, the name it may be set under."""
    named = {found[1]: found[2] for found in _NAMED.finditer(str(error))}
    text = str(error).removeprefix("Bad configuration: ")
    for name, what in named.items():
        if what == " is not set" and (close := _mistaken_for(name)):
            text += f"; did you mean {close}, which is set?"
    remedy = (
        "Set it in the environment, in .env, or as a file in the secrets directory; docs/settings.md lists "
        "every variable."
    )
    command = " ".join(f"{name}=…" for name in named)
    return from_error(_STEP, ConfigurationError(text), remedy, f"export {command}" if command else "")


def _mistaken_for(name: str) -> str | None:
    """A variable that is set, and may have been meant to be this one."""
    names = [each for each in os.environ if "SUPABASE" in each and each != name]
    longer = [each for each in names if each.endswith(f"_{name}")]
    return next(iter([*longer, *get_close_matches(name, names, n=1, cutoff=0.8)]), None)


def variables_finding() -> Finding:
    """Unknown variables that begin with our prefix, each with the nearest known name."""
    known = _known()
    unknown = sorted({(name, where) for name, where in _set() if name not in known})
    if not unknown:
        return Finding(_STEP, "ok", "all required settings are set, and every PRIORITYD_… variable is known")
    listed, commands = [], []
    for name, where in unknown:
        near = next(iter(get_close_matches(name, known, n=1)), None)
        listed.append(f"{name} in {where}" + (f" (did you mean {near}?)" if near else ""))
        if where == _ENVIRONMENT:
            commands.append(f'export {near}="${name}"; unset {name}' if near else f"unset {name}")
    return Finding(
        _STEP,
        "warning",
        f"unknown: {'; '.join(listed)}",
        "Correct the name or remove the variable; docs/settings.md lists every variable.",
        "; ".join(commands),
    )


def _known() -> list[str]:
    names = [variable_name(field) for field in Settings.model_fields]
    return ["PRIORITYD_SECRETS_DIR", *(name for name in names if name.startswith(_OURS))]


def _set() -> Iterator[tuple[str, str]]:
    """Names with our prefix, and where they are set."""
    for name in os.environ:
        if name.upper().startswith(_OURS):
            yield name.upper() if name.upper() in _known() else name, _ENVIRONMENT
    with suppress(OSError, UnicodeError):
        for name in _LINE.findall(_ENV_FILE.read_text(encoding="utf-8")):
            yield name.upper(), str(_ENV_FILE)
    if secrets := secrets_directory():
        for path in secrets.iterdir():
            if path.name.upper().startswith(_OURS):
                yield path.name.upper(), str(secrets)
