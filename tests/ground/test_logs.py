"""What is written to the logs."""

from __future__ import annotations

import json

import pytest
import structlog

from priorityd.daemon.logs import configure_logs


@pytest.mark.usefixtures("logs_restored")
def test_secrets_do_not_reach_the_logs(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info", ("sb_secret_abc",))
    log = structlog.stdlib.get_logger()
    log.info(
        "x", url="wss://h/?apikey=sb_secret_abc", error=ValueError("sb_secret_abc"), nested=["sb_secret_abc"]
    )
    log.error("failed", exc_info=RuntimeError("the key is sb_secret_abc"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "sb_secret_abc" not in "".join(lines)
    assert json.loads(lines[1])["level"] == "error"
