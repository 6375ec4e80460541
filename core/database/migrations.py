"""The migrations as a project gets them: two files with the units of all our files, under new time stamps.

A unit is one DO block, safe to apply again. Those that make tables and indexes are copied as they are; those
that make functions become one block, so that all functions change in one transaction whatever client applies
it. That block leaves out the comments between functions: the Supabase CLI reads no statement above 256 KiB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind = Literal["tables", "functions"]

KINDS: Final[tuple[Kind, ...]] = ("tables", "functions")
"""In the order in which the two files are applied."""

WRITTEN_FILES: Final = "*_priorityd_*.sql"

_BETWEEN_FUNCTIONS: Final = re.compile(r"^ {0,4}--.*\n", re.MULTILINE)
_BEGINS: Final = re.compile(r"do \$(tables|functions)\$")
_MARK: Final = re.compile(r"^-- priorityd migration set (\d+): (tables|functions)\s*$", re.MULTILINE)
_VERSION: Final = re.compile(r"[0-9]+_")
"""How a migration's name begins; the Supabase CLI applies migrations in the order of their names."""
_STAMP: Final = "%Y%m%d%H%M%S"
_DATE: Final = "%Y%m%d"

_NEWER: Final = "set {newest} is there already: it is newer and also works with this version"
_DIFFERENT: Final = (
    "{name} differs from what this version writes: restore it or, if it has not been applied anywhere yet, "
    "delete the files of set {number} and run this again"
)
_NO_TABLES: Final = (
    "the functions of set {number} are there without its tables: restore the file with the tables"
)
_NO_OTHERS: Final = (
    "no other migrations here: tracked_repositories and workspace_repositories must exist before these"
)
_NOTHING_FOLLOWS: Final = "no time stamp can follow {last}…: rename that file to the time it was written"


@dataclass(frozen=True, slots=True)
class SqlFile:
    """A file's name and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Package:
    """The migrations of one version of priorityd."""

    release: str
    migration_set: int
    texts: Mapping[Kind, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a directory: files to write, messages, and whether it is up to date already."""

    new: tuple[SqlFile, ...] = ()
    words: tuple[str, ...] = ()
    up_to_date: bool = False


@dataclass(frozen=True, slots=True)
class _Unit:
    kind: Kind
    comment: str
    body: str


@dataclass(frozen=True, slots=True)
class _Written:
    name: str
    migration_set: int
    kind: Kind
    sql: list[str]


# ---------------------------------------------------------------------------------------------------------
# What there is to write
# ---------------------------------------------------------------------------------------------------------


def gather(files: Sequence[SqlFile]) -> dict[Kind, str]:
    """The SQL of all units by kind, in the order of the files.

    Raises:
        ValueError: A file holds anything but comments and units.
    """
    sections: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for file in files:
        header, units = _read(file)
        for kind in KINDS:
            chosen = [unit for unit in units if unit.kind == kind]
            if chosen:
                about = f"-- {file.name}\n--\n{header}" if header and kind == "tables" else f"-- {file.name}"
                sections[kind].append("\n\n".join([about, *map(_block, chosen)]))
    tables = "\n\n\n".join(sections["tables"])
    functions = "\n\n\n".join(sections["functions"])
    return {
        "tables": f"{tables}\n",
        "functions": f"do $functions$\nbegin\n\n{functions}\n\nend\n$functions$;\n",
    }


def _block(unit: _Unit) -> str:
    if unit.kind == "functions":
        return re.sub(r"\n{3,}", "\n\n", _BETWEEN_FUNCTIONS.sub("", f"{unit.body.removesuffix(';')};"))
    return _joined(unit.comment, f"do ${unit.kind}$\n{unit.body}\n${unit.kind}$;")


def _joined(comment: str, sql: str) -> str:
    return f"{comment}\n{sql}" if comment else sql


def _read(file: SqlFile) -> tuple[str, list[_Unit]]:
    """The comment at a file's top, to the first blank line, and the units with the comments before them."""
    lines = file.text.split("\n")
    top = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    units: list[_Unit] = []
    comment: list[str] = []
    rest = iter(lines[top:])
    for line in rest:
        begins = _BEGINS.fullmatch(line)
        if begins:
            kind = cast("Kind", begins[1])
            units.append(_Unit(kind, "\n".join(comment).strip("\n"), _body(file.name, kind, rest)))
            comment = []
        elif line.startswith("--") or not line.strip():
            comment.append(line)
        else:
            raise ValueError(f"{file.name}: neither a comment nor a unit: {line}")
    if not units or any(comment):
        raise ValueError(f"{file.name}: it does not end with a unit")
    return "\n".join(lines[:top]), units


def _body(name: str, kind: Kind, lines: Iterator[str]) -> str:
    """The text between a unit's delimiters."""
    delimiter = f"${kind}$"
    body: list[str] = []
    for line in lines:
        if line == f"{delimiter};":
            break
        if delimiter in line:
            raise ValueError(f"{name}: {delimiter} inside of a unit: {line}")
        body.append(line)
    else:
        raise ValueError(f"{name}: a unit is not closed by {delimiter};")
    if not body or body[-1] not in ("end", "end;"):
        raise ValueError(f"{name}: a unit's last line is not its end")
    return "\n".join(body)


# ---------------------------------------------------------------------------------------------------------
# What a directory lacks
# ---------------------------------------------------------------------------------------------------------


def plan(names: Sequence[str], written: Sequence[SqlFile], package: Package, now: datetime) -> Plan:
    """What a directory lacks: nothing if it holds the package's set or a newer one, which works as well.

    `names` are the names of everything in it, `written` the files that match `WRITTEN_FILES`.
    """
    number = package.migration_set
    sets = [found for file in written if (found := _recognized(file))]
    newest = max((each.migration_set for each in sets), default=0)
    if newest > number:
        return Plan(words=(_NEWER.format(newest=newest),), up_to_date=True)
    there = [each for each in sets if each.migration_set == number]
    lacking = [kind for kind in KINDS if all(each.kind != kind for each in there)]
    wrong = [
        _DIFFERENT.format(name=each.name, number=number)
        for each in there
        if each.sql != _lines(package.texts[each.kind])
    ]
    if there and "tables" in lacking:
        wrong.append(_NO_TABLES.format(number=number))
    if wrong or not lacking:
        return Plan(words=tuple(wrong), up_to_date=not wrong)
    last = max((version[0] for name in names if (version := _VERSION.match(name))), default="")
    moments = _moments_after(last, now, len(lacking))
    if not moments:
        return Plan(words=(_NOTHING_FOLLOWS.format(last=last),))
    new = tuple(_new_file(package, kind, at) for kind, at in zip(lacking, moments, strict=True))
    ours = {file.name for file in written}
    alone = all(name in ours for name in names if _VERSION.match(name))
    return Plan(new, words=(_NO_OTHERS,) if alone else ())


def _recognized(file: SqlFile) -> _Written | None:
    mark = _MARK.search(file.text)
    if mark is None:
        return None
    lines = _lines(file.text)
    header = lines.index("") if "" in lines else len(lines)
    return _Written(file.name, int(mark[1]), cast("Kind", mark[2]), lines[header + 1 :])


def _lines(text: str) -> list[str]:
    """A text's lines, whatever line endings it was checked out with."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _moments_after(last: str, now: datetime, count: int) -> list[datetime]:
    """So many successive seconds, from now on if possible, whose time stamps sort after the version `last`.

    Empty if no time stamp can.
    """
    first = now
    try:
        if _stamp(first) <= last:
            digits = last.removesuffix("_")
            if len(digits) == len(_stamp(now)) - 1:
                first = datetime.strptime(digits, _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
            else:
                first = datetime.strptime(digits, _DATE).replace(tzinfo=UTC) + timedelta(days=1)
        moments = [first + timedelta(seconds=second) for second in range(count)]
    except (ValueError, OverflowError):
        return []
    return moments if _stamp(first) > last else []


def _stamp(moment: datetime) -> str:
    """How a file name begins, including the underscore: it matters in comparing with a shorter version."""
    return f"{moment.strftime(_STAMP)}_"


def _new_file(package: Package, kind: Kind, moment: datetime) -> SqlFile:
    release = re.sub(r"[^0-9A-Za-z]+", "_", package.release)
    header = (
        f"-- The {kind} of priorityd {package.release}, written by `priorityd migrations`.\n"
        f"-- priorityd migration set {package.migration_set}: {kind}\n"
        "-- Don't edit this file: for a newer set, the same command writes new files beside it.\n"
    )
    name = f"{_stamp(moment)}priorityd_{release}_{kind}.sql"
    return SqlFile(name, f"{header}\n{package.texts[kind]}")
