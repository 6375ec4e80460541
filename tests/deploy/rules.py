"""The rules that Prometheus is given."""

from __future__ import annotations

import yaml

from tests.support.repository import DEPLOY

RULES = DEPLOY / "prometheus"
FILES = ("recording.rules.yml", "alerts.rules.yml")
GROUPS = [group for name in FILES for group in yaml.safe_load((RULES / name).read_text())["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
