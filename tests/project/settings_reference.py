"""`python -m tests.project.settings_reference`: the manual's table of the settings, made from them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from priorityd.daemon.settings import Settings, shown, variable_name

_LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def reference() -> str:
    """A table row for each setting, in the order of `Settings`."""
    rows = [_row(name, info) for name, info in Settings.model_fields.items()]
    return "\n".join(["| variable | default | takes | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _row(field: str, info: FieldInfo) -> str:
    names = " or ".join(f"`{name}`" for name in variable_name(field).split(" or "))
    meaning = (info.description or "").replace("|", r"\|")
    return f"| {names} | {_default(info)} | {_takes(info)} | {meaning} |"


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default is None:
        return "none"
    return f"`{shown(info.default)}`"


def _takes(info: FieldInfo) -> str:
    choices = [choice for choice in get_args(info.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = [
        f"{words} {_number(getattr(constraint, sign))}"
        for sign, words in _LIMITS.items()
        for constraint in info.metadata
        if getattr(constraint, sign, None) is not None
    ]
    return " ".join([_kind(info.annotation), *limits])


def _kind(annotation: Any) -> str:
    kinds = {bool: "`true` or `false`", int: "an integer", float: "a number"}
    return kinds.get(annotation, "text")


def _number(value: float) -> str:
    return f"{value:,g}" if value < 1_000_000 else f"{value:,}"


if __name__ == "__main__":
    print(reference(), end="")
