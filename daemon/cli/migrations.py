"""`priorityd migrations`: writes into a project's migrations what they lack of ours."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from priorityd.core import __version__
from priorityd.core.database.migrations import WRITTEN_FILES, Package, SqlFile, gather, plan
from priorityd.core.database.schema import MIGRATION_SET
from priorityd.core.errors import ExitCode, PriorityError
from priorityd.daemon.migration_files import migration_files

if TYPE_CHECKING:
    from pathlib import Path


def migrations_command(directory: Path, *, check: bool) -> ExitCode:
    """Write what the directory lacks of this version's migrations, or only say whether it lacks anything."""
    texts = gather([read_file(file) for file in migration_files()])
    return bring_up_to_date(directory, Package(__version__, MIGRATION_SET, texts), check=check)


def bring_up_to_date(directory: Path, package: Package, *, check: bool) -> ExitCode:
    """Written paths to stdout, messages to stderr; 0 if the directory is up to date now."""
    try:
        names = [] if _is_yet_to_be_made(directory) else [each.name for each in directory.iterdir()]
        written = [read_file(file) for file in sorted(directory.glob(WRITTEN_FILES))]
        todo = plan(names, written, package, datetime.now(UTC))
        for word in todo.words:
            _say(f"{directory}: {word}")
        if check and todo.new:
            _say(
                f"{directory} lacks migrations of set {package.migration_set}: "
                f"run priorityd migrations --into {directory}"
            )
            return ExitCode.FAILED
        if todo.new:
            directory.mkdir(exist_ok=True)
        for file in todo.new:
            _write(directory / file.name, file.text)
            click.echo(directory / file.name)
    except OSError as error:
        raise PriorityError(f"{error.filename or directory}: {error.strerror}") from error
    if todo.new:
        _say("next, apply them: supabase db push --linked")
    return ExitCode.DONE if todo.new or todo.up_to_date else ExitCode.FAILED


def _is_yet_to_be_made(directory: Path) -> bool:
    """`supabase init` makes no directory for migrations."""
    return not directory.exists() and directory.parent.is_dir()


def read_file(file: Path) -> SqlFile:
    """A file's name and text."""
    return SqlFile(file.name, file.read_text("utf-8", errors="replace"))


def _write(path: Path, text: str) -> None:
    """Write a whole file or none, and never over another one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.touch(exist_ok=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _say(text: str) -> None:
    click.echo(f"priorityd: {text}", err=True)
