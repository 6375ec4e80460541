"""The command line. Data goes to stdout, words to stderr.

Commands import what they need when they run, so that `--help` is quick.
"""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from priorityd.core import __version__
from priorityd.core.errors import ExitCode, PriorityError
from priorityd.core.jobs.events import EVENT_NAMES
from priorityd.core.priorities import LABELS
from priorityd.core.vocabulary import QUEUE_MODES
from priorityd.daemon.cli.parameters import WholeSummaries, repository
from priorityd.daemon.sandbox.worlds import WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from priorityd.core.vocabulary import JobType, QueueMode
    from priorityd.daemon.cli.operate import Command
    from priorityd.daemon.cli.repositories import Words

_NAME: Final = "priorityd"
_EXIT_CODES: Final = """\b
Exit codes:
  0   done
  1   failed
  2   wrong usage
  10  a dry run found differences
  69  Supabase or Inngest can't be reached
  76  migrations or a privilege are missing (the message says what to type)
  77  the key was refused
  78  a setting is missing or out of range (the message names it)
"""


@click.group(cls=WholeSummaries, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_NAME)
def cli() -> None:
    """Keep tracked_repositories.priority in sync with workspace membership.

    Settings come from the environment, a .env file or a directory of secrets: SUPABASE_URL and
    SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_SECRET_KEY) are needed, PRIORITYD_… are optional.

    An ID is a repository's: its uuid, or owner/name as the application knows it.
    """


@cli.command()
def run() -> None:
    """Run the daemon until SIGTERM or SIGINT.

    SIGHUP takes a new key from the file that the old one came from, and forces a full resync. A second
    SIGTERM stops without finishing waiting work.
    """
    # What an import makes stays for good: a full collection that looked for garbage among it would hold up
    # the event loop for some 75 ms each time (`python -m tests.benchmarks garbage`).
    gc.disable()
    with _as_if_missing("greenlet", "pygments", "rich"):
        from priorityd.daemon.cli.run import run_daemon_command

    gc.freeze()
    gc.enable()
    sys.exit(run_daemon_command())


@cli.command()
@click.option("--no-daemon", is_flag=True, help="Serve only; do not run the daemon.")
@click.option(
    "--world",
    type=click.Choice(WORLDS),
    default=WORLDS[0],
    metavar="NAME",
    help=f"A schema as applications have it, instead of the plain one: {', '.join(WORLDS[1:])}.",
)
@click.option("--empty", is_flag=True, help="Begin without demo data.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data there for the next time.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=54321,
    show_default=True,
    help="Port of the stand-in for Supabase; 0 takes any free one.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=9815,
    show_default=True,
    envvar="PRIORITYD_HTTP_PORT",
    show_envvar=True,
    help="Port of the daemon's own endpoints; 0 takes any free one.",
)
@click.option(
    "--traffic",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default="1",
    help="Demo changes, and as many demo jobs, per second; 0 for none.",
)
def sandbox(
    *,
    no_daemon: bool,
    world: str,
    empty: bool,
    data_dir: Path | None,
    port: int,
    http_port: int,
    traffic: float,
) -> None:
    """Run everything on this machine: PostgreSQL, a stand-in for Supabase, and the daemon.

    For development and for a first look. No account, no Docker; nothing is left behind. The PostgreSQL is
    real; /rest/v1 and /realtime/v1 are stand-ins for Supabase's. Needs the extra "sandbox".
    """
    from priorityd.daemon.cli.sandbox import run_sandbox_command

    sys.exit(
        run_sandbox_command(
            with_daemon=not no_daemon,
            world=world,
            empty=empty,
            data_dir=data_dir,
            port=port,
            http_port=http_port,
            traffic=traffic,
        )
    )


@cli.command()
@click.option("--dry-run", is_flag=True, help="Show what would change and change nothing.")
@click.option(
    "--repository",
    "repositories",
    type=repository,
    metavar="ID",
    multiple=True,
    help="Only this repository (may be repeated).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sync(**options: object) -> None:
    """Sync every tracked repository's priority, once, now.

    With --dry-run the exit code says whether anything would change: 10 if so, 0 if not.
    """
    from priorityd.daemon.cli.sync import sync_command

    _operate(sync_command, options)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(**options: object) -> None:
    """Show the priorities as a whole, and the daemon's state if it runs on this machine."""
    from priorityd.daemon.cli.status import status_command

    _operate(status_command, options)


@cli.command()
@click.option(
    "--into",
    "directory",
    required=True,
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    help="The project's migrations; made if only the last directory is missing.",
)
@click.option("--check", is_flag=True, help="Write nothing; the exit code is 1 if anything is missing.")
def migrations(*, directory: Path, check: bool) -> None:
    """Write into a project's migrations what they lack of ours, under time stamps that follow theirs.

    \b
    priorityd migrations --into supabase/migrations && supabase db push --linked

    That is the whole set the first time and after an upgrade that brings a newer one, else nothing; what is
    there stays as it is. If one of our files was edited or is gone it says so, and the exit code is 1. Needs
    no settings and no database.
    """
    from priorityd.daemon.cli.migrations import migrations_command

    sys.exit(migrations_command(directory, check=check))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(*, as_json: bool) -> None:
    """Test the set-up step by step, and say how to fix what is wrong."""
    from priorityd.daemon.cli.check import check_command

    sys.exit(check_command(as_json=as_json))


@cli.command()
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only whether it is alive.")
def health(*, ready: bool) -> None:
    """Say by the exit code whether the daemon on this machine is alive."""
    from priorityd.daemon.cli.health import health_command

    sys.exit(health_command(ready=ready))


@cli.command()
@click.argument("repository", type=repository, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the answer and its evidence as JSON.")
def explain(**options: object) -> None:
    """Say why a repository has the priority it has, and show the evidence."""
    from priorityd.daemon.cli.explain import explain_command

    _operate(explain_command, options)


@cli.command()
@click.argument("repository", type=repository, metavar="ID")
@click.argument("priority", type=click.Choice(LABELS), metavar="PRIORITY")
@click.option("--json", "as_json", is_flag=True, help="Print what changed as JSON.")
def pin(**options: object) -> None:
    """Set a repository's manual priority: what it has whenever no workspace holds it.

    PRIORITY is high, medium or low; where the application has it also critical, which no workspace lowers.
    """
    from priorityd.daemon.cli.operate import pin_command

    _operate(pin_command, options)


@cli.command()
@click.argument("repository", type=repository, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print what changed as JSON.")
def unpin(**options: object) -> None:
    """Clear a repository's manual priority."""
    from priorityd.daemon.cli.operate import pin_command

    _operate(pin_command, {**options, "priority": None})


@cli.command()
@click.argument("job_type", type=click.Choice(list(EVENT_NAMES)), metavar="JOB_TYPE")
@click.argument("repositories", type=repository, nargs=-1, metavar="[ID]...")
@click.option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="Read repositories, one a line: owner/name, or a uuid, which a name may follow.",
)
@click.option("--data", metavar="JSON", help="Fields of your own for each event, as a JSON object.")
@click.option(
    "--batch-id", metavar="TEXT", help="Repeated with the same within 24 hours, nothing runs twice."
)
@click.option(
    "--mode",
    type=click.Choice(QUEUE_MODES),
    help="direct: at once to Inngest. ordered: wait in the database, released in strict order. "
    "PRIORITYD_QUEUE_MODE decides otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of the jobs as JSON.")
def queue(
    *,
    job_type: JobType,
    repositories: Sequence[Words],
    from_stdin: bool,
    data: str | None,
    batch_id: str | None,
    mode: QueueMode | None,
    as_json: bool,
) -> None:
    """Queue a job for each repository with its priority, those of workspace repositories first.

    JOB_TYPE is historical-pr-sync, recent-prs, pr-details, reviews, comments, repository-issues or
    repository-discussions. In direct mode INNGEST_EVENT_KEY (or INNGEST_DEV) is needed. Jobs that could
    not be queued are listed on stdout as --stdin reads them.
    """
    from priorityd.daemon.cli.job_order import read_jobs
    from priorityd.daemon.cli.queue import queue_command

    order = read_jobs(job_type, repositories, sys.stdin.buffer if from_stdin else None, data, batch_id)
    _operate(queue_command, {"order": order, "mode": mode, "as_json": as_json})


_JOB_TYPE: Final = click.Choice(list(EVENT_NAMES))


@cli.group(cls=WholeSummaries)
def jobs() -> None:
    """See and cancel the jobs that wait in order."""


@jobs.command("list")
@click.option("--type", "job_type", type=_JOB_TYPE, help="Only jobs of this type.")
@click.option("--repository", type=repository, metavar="ID", help="Only this repository's jobs.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_jobs(**options: object) -> None:
    """List the jobs in flight, then those that wait with their positions, the next one first.

    A position counts the jobs of its type, and is that of this moment: a change of priority moves it.
    """
    from priorityd.daemon.cli.jobs import list_command

    _operate(list_command, options)


@jobs.command("cancel")
@click.argument("job_ids", type=click.UUID, nargs=-1, metavar="[JOB_ID]...")
@click.option("--repository", type=repository, metavar="ID", help="All that wait of this repository.")
@click.option("--type", "job_type", type=_JOB_TYPE, help="Only those of this type.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def cancel_jobs(
    *, job_ids: Sequence[UUID], repository: Words | None, job_type: JobType | None, as_json: bool
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
    _operate(cancel_command, options)


@cli.command()
@click.option("--yes", is_flag=True, help="Really do it.")
@click.option("--json", "as_json", is_flag=True, help="Print how many rows changed as JSON.")
def rollback(*, yes: bool, **options: object) -> None:
    """Take every workspace priority away: flags off, counts 0, priorities manual or medium.

    Stop the daemon first, or it will put them back. It is one call for all rows, and does all or nothing:
    where something on the way gives up waiting, the message says how to see what became of it.
    """
    if not yes:
        raise click.UsageError("This changes every workspace repository. Repeat it with --yes.")
    from priorityd.daemon.cli.operate import rollback_command

    _operate(rollback_command, options)


@cli.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(*, shell: str) -> None:
    """Print what lets a shell complete priorityd's commands and options.

    \b
    bash:  eval "$(priorityd completion bash)"             in ~/.bashrc
    zsh:   eval "$(priorityd completion zsh)"              in ~/.zshrc, after compinit
    fish:  priorityd completion fish > ~/.config/fish/completions/priorityd.fish
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - click brings all three
    click.echo(complete(cli, {}, _NAME, f"_{_NAME.upper()}_COMPLETE").source())


@contextmanager
def _as_if_missing(*packages: str) -> Iterator[None]:
    """Let what is imported do without these packages, as it can.

    httpx takes them for a command line of its own; structlog for tracebacks on a terminal and for threads
    that there are none of: 5 MiB for as long as the daemon runs, and a fifth of the time to import it.
    """
    hidden = {name: None for name in packages if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: an import fails as if it were not installed
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _operate(command: Command, options: dict[str, object]) -> None:
    from priorityd.daemon.cli.operate import operate

    sys.exit(operate(command, options))


def main() -> None:
    """The entry point `priorityd`."""
    try:
        cli(prog_name=_NAME)
    except PriorityError as error:
        click.echo(f"priorityd: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(ExitCode.FAILED)
