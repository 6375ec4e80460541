"""The programs that tests start are processes like any others, though most are forked."""

from __future__ import annotations

import os
import signal
from subprocess import DEVNULL

import pytest

from tests.support.daemon_process import environment
from tests.support.programs import Forked, Forker, open_module, run_module, serving_forks


async def test_a_fork_has_its_own_streams_arguments_and_end() -> None:
    text = "ä" * 100_000
    given = f'["{text}"]'.encode()
    code, out, err = await run_module("json.tool", "--no-ensure-ascii", env=environment(), given=given)
    assert (code, out.count("ä"), err) == (0, len(text), "")
    code, out, err = await run_module("json.tool", env=environment(), given=b"nonsense")
    assert (code, out) == (1, "")
    assert "Expecting value" in err


async def test_a_fork_reports_what_it_has_left_open() -> None:
    in_a_cycle = "left = [open('/dev/null')]; left.append(left)"
    code, _, err = await run_module("timeit", "-n1", "-r1", in_a_cycle, env=environment())
    assert code == 0
    assert "unclosed file" in err


async def test_a_fork_has_its_own_environment() -> None:
    code, _, err = await run_module("priorityd", "status", env=environment(SUPABASE_URL="ftp://nowhere"))
    assert code == 78
    assert "SUPABASE_URL" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_fork_is_ended_by_signals(number: signal.Signals) -> None:
    async with await open_module("http.server", "--bind", "127.0.0.1", "0", env=environment()) as process:
        assert isinstance(process, Forked)
        process.send_signal(number)
        assert await process.wait() == -number
        process.send_signal(number)


async def test_a_fork_whose_forker_has_ended_is_waited_for_no_longer() -> None:
    with serving_forks() as path:
        forker = Forker(path)
        process = Forked(forker, "http.server", ("0",), environment(), (DEVNULL, DEVNULL, DEVNULL))
    forker.close()
    try:
        with pytest.raises(AssertionError, match="the forker has ended"):
            await process.wait()
    finally:
        os.kill(process.pid, signal.SIGKILL)


async def test_what_the_interpreter_reads_when_it_starts_is_told_to_a_new_one() -> None:
    async with await open_module("json.tool", "--help", env=environment(PYTHONUTF8=1)) as process:
        assert not isinstance(process, Forked)
        assert await process.wait() == 0
