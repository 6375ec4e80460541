"""A shell into which what was printed is typed.

`psql` and `priorityd` are the real ones. `supabase db push` is a stand-in: it applies the files of
supabase/migrations that it has not applied before, in their order, and stops at the first that fails, as the
CLI does (supabase/cli 2.104.0, `apps/cli-go/internal/db/push/push.go`; the CLI itself is tried in
`tests/sql/test_supabase_cli.py`).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import anyio

from tests.checks.situation import Place
from tests.support.psql import PSQL
from tests.support.repository import ROOT

_ELLIPSIS = re.compile(r"\b([A-Z_]+)=…")
_PUSH = """#!/bin/sh
[ "$1 $2" = 'db push' ] || exit 2
touch .pushed
for file in supabase/migrations/*.sql; do
    grep -qxF "$file" .pushed && continue
    psql "$DATABASE_URL" --quiet -v ON_ERROR_STOP=1 -f "$file" || exit 1
    echo "$file" >> .pushed
done
"""


async def type_into_shell(place: Place, command: str) -> None:
    """Run it; what it exports is in the place's environment from then on. A failure is one of the test."""
    _install(place.directory / "bin")
    (place.directory / "supabase" / "migrations").mkdir(parents=True, exist_ok=True)
    filled = _ELLIPSIS.sub(lambda found: f"{found[1]}={shlex.quote(place.right[found[1]])}", command)
    script = f"set -e -o pipefail\n{filled}\nenv -0 > .environment\n"
    environment = place.environment | {
        "PATH": f"{place.directory / 'bin'}:{place.environment['PATH']}",
        "DATABASE_URL": place.stack.database.url,
        "TMPDIR": str(place.directory),
    }
    done = await anyio.run_process(
        ["bash", "-c", script], env=environment, cwd=place.directory, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}"
    entries = (place.directory / ".environment").read_text().split("\0")
    there = dict(entry.split("=", 1) for entry in entries if entry)
    own = ("SUPABASE", "PRIORITYD", "INNGEST", "HTTP")
    for name in {*place.environment, *there}:
        if name.startswith(own):
            place.set(**{name: there.get(name)})


def _install(directory: Path) -> None:
    if directory.is_dir():
        return
    directory.mkdir()
    for name, text in {
        "psql": f'#!/bin/sh\nexec {PSQL} --no-psqlrc "$@"\n',
        "priorityd": f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m priorityd "$@"\n',
        "supabase": _PUSH,
    }.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
