"""`priorityd check`: tests the set-up step by step, and shows how to fix what is wrong.

The steps test effects: some rows are written and rolled back, and another must come back through the stream.
Each part is a module. An error in a part becomes one of its findings, so the check always ends with a
verdict and a command to type next. No command that it prints makes the application's reads or writes fail,
and the text warns about any that takes a lock that others would notice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Final

import anyio
import click

from priorityd.core.errors import ConfigurationError, ExitCode
from priorityd.daemon.cli.check.guard import guarded
from priorityd.daemon.cli.check.inngest import inngest_findings
from priorityd.daemon.cli.check.port import port_finding
from priorityd.daemon.cli.check.supabase import supabase_findings
from priorityd.daemon.cli.check.variables import bad_settings, variables_finding
from priorityd.daemon.cli.finding import Finding
from priorityd.daemon.logs import configure_logs
from priorityd.daemon.settings import load_settings, proxy_passwords

_MARKS: Final = {"ok": "ok", "skipped": "skipped", "warning": "warning", "failed": "FAILED"}


def check_command(*, as_json: bool) -> ExitCode:
    """Run each step that makes sense after the previous ones. The exit code is that of the first failure."""
    findings = anyio.run(_run, not as_json)
    failed = [finding for finding in findings if finding.outcome == "failed"]
    verdict, command = _verdict(findings)
    if as_json:
        shown = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": not failed, "verdict": verdict, "next": command, "findings": shown}))
    else:
        click.echo(f"\n{verdict}\n         $ {command}")
    return failed[0].exit_code if failed else ExitCode.DONE


async def _run(show: bool) -> list[Finding]:
    findings = []
    async for finding in guarded("check", _findings()):
        findings.append(finding)
        if show:
            _show(finding)
    return findings


async def _findings() -> AsyncIterator[Finding]:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield bad_settings(error)
        return
    configure_logs("auto", "error", (*settings.secrets, *proxy_passwords()))
    yield variables_finding()
    async for finding in guarded("metrics port", port_finding(settings)):
        yield finding
    async for finding in guarded("Supabase", supabase_findings(settings)):
        yield finding
    async for finding in guarded("Inngest", inngest_findings(settings)):
        yield finding


def _show(finding: Finding) -> None:
    click.echo(f"{_MARKS[finding.outcome]:<7}  {finding.step}: {finding.text}")
    if finding.remedy:
        click.echo(f"         → {finding.remedy}")
    if finding.command:
        click.echo(f"         $ {finding.command}")


def _verdict(findings: Sequence[Finding]) -> tuple[str, str]:
    """A summary, and the command to type next."""
    failed = [finding for finding in findings if finding.outcome == "failed"]
    warnings = [finding for finding in findings if finding.outcome == "warning"]
    if failed:
        steps = ", ".join(dict.fromkeys(finding.step for finding in failed))
        todo = f"Start with {failed[0].step}" if len(failed) > 1 else "Follow the advice above"
        return f"Failed: {steps}. {todo}, then check again.", failed[0].command or "priorityd check"
    if warnings:
        steps = ", ".join(dict.fromkeys(finding.step for finding in warnings))
        return f"It works, with warnings: {steps}.", "priorityd run"
    return "All is well.", "priorityd run"
