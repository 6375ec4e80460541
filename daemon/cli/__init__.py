"""The command line. Data goes to stdout, messages to stderr.

`commands` declares the commands: their names, options and help. The code of each is in a module of this
package, which is imported only when the command runs, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from priorityd.core import __version__
from priorityd.core.errors import ExitCode, PriorityError
from priorityd.daemon.cli.commands import daemon, jobs, priorities, setup
from priorityd.daemon.cli.parameters import PROGRAM, WholeSummaries

_EXIT_CODES: Final = """\b
Exit codes:
  0   done
  1   failed
  2   wrong usage
  10  a dry run found differences
  69  Supabase or Inngest can't be reached
  76  migrations or a privilege are missing (the message has the command)
  77  the key was refused
  78  a setting is missing or out of range (the message names it)
"""


@click.group(cls=WholeSummaries, epilog=_EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Keep tracked_repositories.priority in sync with workspace membership.

    Settings come from the environment, a .env file or a directory of secrets. SUPABASE_URL and
    SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_SECRET_KEY) are required; those named PRIORITYD_… are optional.

    An ID names a repository: its uuid, or owner/name as the application knows it.
    """


# In the order of the manual page.
for _command in (
    daemon.run,
    daemon.sandbox,
    setup.migrations,
    setup.check,
    daemon.status,
    daemon.health,
    priorities.sync,
    priorities.explain,
    priorities.pin,
    priorities.unpin,
    jobs.queue,
    jobs.jobs,
    priorities.rollback,
    setup.completion,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point `priorityd`."""
    try:
        cli(prog_name=PROGRAM)
    except PriorityError as error:
        click.echo(f"priorityd: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 - it is reported as what it is: a bug
        from priorityd.daemon.cli.bugs import report_bug

        sys.exit(report_bug(error))
