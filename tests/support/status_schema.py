"""`python -m tests.support.status_schema`: writes the schema of `/status` anew."""

from __future__ import annotations

import json

from priorityd.daemon.status.report import Report
from tests.status.test_page import SCHEMA

SCHEMA.write_text(json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n")
