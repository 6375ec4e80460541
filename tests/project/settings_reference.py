"""`python -m tests.project.settings_reference`: what the manual says of the settings, made from them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from priorityd.daemon.settings import Settings, shown, variable_name

_SIGNS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


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
        return "needed"
    if info.default is None:
        return "none"
    return f"`{shown(info.default)}`"


def _takes(info: FieldInfo) -> str:
    choices = [choice for choice in get_args(info.annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = [
        f"{words} {_number(getattr(constraint, sign))}"
        for constraint in info.metadata
        for sign, words in _SIGNS.items()
        if getattr(constraint, sign, None) is not None
    ]
    return " ".join([_kind(info.annotation), *([", ".join(limits)] if limits else [])])


def _kind(annotation: Any) -> str:
    kinds = {bool: "`true` or `false`", int: "a whole number", float: "a number"}
    return kinds.get(annotation, "a text")


def _number(value: float) -> str:
    return f"{value:g}" if value < 1_000_000 else f"{value:,}"


if __name__ == "__main__":
    print(reference(), end="")
