"""Commands about jobs: queueing them, and the ordered ones that are waiting."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from priorityd.core.jobs.events import EVENT_NAMES
from priorityd.core.vocabulary import QUEUE_MODES
from priorityd.daemon.cli.parameters import WholeSummaries, json_option, repository, run_connected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from priorityd.core.vocabulary import JobType, QueueMode
    from priorityd.daemon.cli.repositories import IdOrName

_JOB_TYPE: Final = click.Choice(list(EVENT_NAMES))


@click.command()
@click.argument("job_type", type=_JOB_TYPE, metavar="JOB_TYPE")
@click.argument("repositories", type=repository, nargs=-1, metavar="[ID]...")
@click.option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="Read repositories from standard input, one per line: owner/name, or a uuid and optionally a name.",
)
@click.option("--data", metavar="JSON", help="Additional fields for each event, as a JSON object.")
@click.option(
    "--batch-id",
    metavar="TEXT",
    help="Repeat the command with the same text within 24 hours, and no job runs twice.",
)
@click.option(
    "--mode",
    type=click.Choice(QUEUE_MODES),
    help="direct: sent to Inngest at once. ordered: kept in the database and released in strict order. "
    "The default is PRIORITYD_QUEUE_MODE.",
)
@json_option
def queue(
    *,
    job_type: JobType,
    repositories: Sequence[IdOrName],
    from_stdin: bool,
    data: str | None,
    batch_id: str | None,
    mode: QueueMode | None,
    as_json: bool,
) -> None:
    """Queue a job for each repository with its priority, those of workspace repositories first.

    JOB_TYPE is historical-pr-sync, recent-prs, pr-details, reviews, comments, repository-issues or
    repository-discussions. Direct mode needs INNGEST_EVENT_KEY (or INNGEST_DEV). Repositories whose jobs
    could not be queued are listed on stdout, in the form that --stdin reads.
    """
    from priorityd.daemon.cli.job_order import read_jobs
    from priorityd.daemon.cli.queue import queue_command

    order = read_jobs(job_type, repositories, sys.stdin.buffer if from_stdin else None, data, batch_id)
    run_connected(queue_command, {"order": order, "mode": mode, "as_json": as_json})


@click.group(cls=WholeSummaries)
def jobs() -> None:
    """List or cancel ordered jobs."""


@jobs.command("list")
@click.option("--type", "job_type", type=_JOB_TYPE, help="Only jobs of this type.")
@click.option("--repository", type=repository, metavar="ID", help="Only jobs of this repository.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Show at most this many."
)
@json_option
def list_jobs(**options: object) -> None:
    """List the ordered jobs in flight, then those waiting, the next one first.

    A position is a job's place among the waiting jobs of its type; it changes when priorities change.
    """
    from priorityd.daemon.cli.jobs import list_command

    run_connected(list_command, options)


@jobs.command("cancel")
@click.argument("job_ids", type=click.UUID, nargs=-1, metavar="[JOB_ID]...")
@click.option("--repository", type=repository, metavar="ID", help="All waiting jobs of this repository.")
@click.option("--type", "job_type", type=_JOB_TYPE, help="Only jobs of this type.")
@json_option
def cancel_jobs(
    *, job_ids: Sequence[UUID], repository: IdOrName | None, job_type: JobType | None, as_json: bool
) -> None:
    """Cancel waiting jobs. Jobs in flight can't be recalled."""
    if not job_ids and repository is None:
        raise click.UsageError("Name at least one job id, or use --repository.")
    from priorityd.daemon.cli.jobs import cancel_command

    options: dict[str, object] = {
        "job_ids": job_ids,
        "repository": repository,
        "job_type": job_type,
        "as_json": as_json,
    }
    run_connected(cancel_command, options)
