"""`python -m tests.support.status_schema`: writes the schema of `/status` anew."""

from __future__ import annotations

import json

from daemon.report import Report
from tests.page.test_words import SCHEMA

SCHEMA.write_text(json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n")
