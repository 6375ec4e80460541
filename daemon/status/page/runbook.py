"""The runbook's entries, to be shown beside the problems that they explain.

`deploy/runbook.md` is part of the package. Only the Markdown that the runbook uses is understood: headings,
lists whose items begin with a bold word, code, emphasis, and links, of which only the text is shown.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

from markupsafe import Markup, escape

_ENTRY: Final = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_ITEM: Final = re.compile(r"^- \*\*(.+?):?\*\*:? +(.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\*(\w+)\*|\[([^\]]+)\]\([^)]+\)")

Entry = tuple[tuple[str, Markup], ...]
"""An alert's meaning, what to look at and what to do: each a heading and its text."""


@cache
def entries() -> dict[str, Entry]:
    """The entry of each alert."""
    text = (resources.files("priorityd") / "runbook.md").read_text("utf-8")
    return {name: tuple(_items(body)) for name, body in _ENTRY.findall(text)}


def _items(body: str) -> list[tuple[str, Markup]]:
    return [
        (heading, _inline(" ".join((text[:1].upper() + text[1:]).split())))
        for heading, text in _ITEM.findall(body)
    ]


def _inline(text: str) -> Markup:
    parts, at = [], 0
    for found in _INLINE.finditer(text):
        code, strong, emphasis, link = found.groups()
        parts.append(escape(text[at : found.start()]))
        tag = "code" if code else "b" if strong else "i" if emphasis else None
        shown = escape(code or strong or emphasis or link)
        parts.append(Markup("<{0}>{1}</{0}>").format(tag, shown) if tag else shown)
        at = found.end()
    parts.append(escape(text[at:]))
    return Markup("").join(parts)
