"""The blocks of docs/transcripts.md."""

from __future__ import annotations

import re

from tests.support.repository import DOCS

PAGE = (DOCS / "transcripts.md").read_text()
BLOCKS = dict(re.findall(r"<!-- (\w+) -->\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
