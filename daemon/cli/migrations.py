"""`priorityd migrations`: adds priorityd's migrations to those of a project."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from priorityd.core import __version__
from priorityd.core.database.migrations import WRITTEN_FILES, Package, SqlFile, gather, plan
from priorityd.core.database.schema import MIGRATION_SET
from priorityd.core.errors import ExitCode, PriorityError
from priorityd.daemon.cli.output import say
from priorityd.daemon.migration_files import migration_files

if TYPE_CHECKING:
    from pathlib import Path


def migrations_command(directory: Path, *, check: bool) -> ExitCode:
    """Write the migrations that the directory lacks, or with `check` only report whether any are missing."""
    texts = gather([read_file(file) for file in migration_files()])
    return bring_up_to_date(directory, Package(__version__, MIGRATION_SET, texts), check=check)


def bring_up_to_date(directory: Path, package: Package, *, check: bool) -> ExitCode:
    """Print the paths written to stdout, messages to stderr. 0 if the directory is up to date now."""
    try:
        names = [] if _is_yet_to_be_made(directory) else [each.name for each in directory.iterdir()]
        written = [read_file(file) for file in sorted(directory.glob(WRITTEN_FILES))]
        todo = plan(names, written, package, datetime.now(UTC))
        for message in todo.words:
            say(f"{directory}: {message}")
        if check and todo.new:
            say(
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
        say("next, apply them: supabase db push --linked")
    return ExitCode.DONE if todo.new or todo.up_to_date else ExitCode.FAILED


def _is_yet_to_be_made(directory: Path) -> bool:
    """`supabase init` does not create the migrations directory."""
    return not directory.exists() and directory.parent.is_dir()


def read_file(file: Path) -> SqlFile:
    """A file's name and text."""
    return SqlFile(file.name, file.read_text("utf-8", errors="replace"))


def _write(path: Path, text: str) -> None:
    """Write the file atomically, and never overwrite one."""
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
