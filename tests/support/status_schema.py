"""`python -m tests.support.status_schema`: regenerates the schema of `/status`."""

from __future__ import annotations

import json
from pathlib import Path

from priorityd.daemon.status.report import Report

SCHEMA = Path(__file__).parents[2] / "deploy" / "status.schema.json"

if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(Report.model_json_schema(mode="serialization"), indent=2) + "\n")
