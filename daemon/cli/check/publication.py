"""The part of `priorityd check` about the publication that Realtime reads.

Publishing a table without a primary key or replica identity makes its updates and deletes fail. So no command
here publishes such a table, or adds operations to a publication that contains one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from priorityd.core.errors import ExitCode
from priorityd.daemon.cli.finding import Finding, Outcome, psql
from priorityd.daemon.database.rows import PublicationCheck

_ADD: Final = "alter publication supabase_realtime add table {}"
_LIST: Final = psql("select * from pg_publication_tables where pubname = 'supabase_realtime'")
_IDENTIFY: Final = "set lock_timeout = '2s'; alter table public.{} replica identity full"


def publication_findings(publication: PublicationCheck) -> Iterator[Finding]:
    """What keeps changes from arriving; no remedy makes the application's writes fail."""
    findings = [
        *_unpublished(publication),
        *(_unidentified(publication, table) for table in publication.unidentified),
        *_flawed(publication),
        *(_partitioned(table) for table in publication.tables if table in publication.partitioned),
    ]
    yield from findings or [_found("ok", f"{', '.join(publication.tables)} are published")]


def _found(outcome: Outcome, text: str, remedy: str = "", command: str = "") -> Finding:
    code = ExitCode.FAILED if outcome == "failed" else ExitCode.DONE
    return Finding("publication", outcome, text, remedy, command, code)


def _unpublished(publication: PublicationCheck) -> Iterator[Finding]:
    tables = ", ".join(
        f"public.{name}" for name in publication.missing if name not in publication.unidentified
    )
    if not publication.exists:
        yield _found(
            "failed",
            "there is no publication supabase_realtime, so nothing is streamed",
            "Create it with the tables that priorityd follows. This blocks no reads or writes.",
            psql("create publication supabase_realtime" + (f" for table {tables}" if tables else "")),
        )
    elif tables:
        yield _found(
            "failed",
            f"not in the publication supabase_realtime: {tables}",
            f"Add the tables, as its owner {publication.owner}. This blocks no reads or writes.",
            psql(_ADD.format(tables)),
        )


def _unidentified(publication: PublicationCheck, table: str) -> Finding:
    """A table without a replica identity. Once it has one it can be published: one command does both."""
    partitioned = table in publication.partitioned
    effect = "it is not published, because its updates and deletes would fail"
    statements = [_IDENTIFY.format(table)]
    if table not in publication.missing:
        effect = "because it is published, its updates and deletes fail"
    elif publication.exists:
        statements.append(_ADD.format(f"public.{table}"))
    remedy = (
        "A primary key is best. If it can't have one, give it a replica identity: this locks the table for a "
        "moment, waits no longer than 2 s for the lock, and makes each change log the whole row."
    )
    if partitioned:
        remedy = "Give each partition a primary key or a replica identity, then apply the migrations again."
    return _found(
        "failed",
        f"{table} has no primary key and no replica identity{' in each partition' if partitioned else ''}; "
        f"{effect}",
        remedy,
        _LIST if partitioned else psql("; ".join(statements)),
    )


def _flawed(publication: PublicationCheck) -> Iterator[Finding]:
    """Published tables whose changes do not all come through; one finding for tables with the same flaws."""
    together: dict[tuple[tuple[str, ...], str, bool], list[str]] = {}
    for table in sorted(publication.flaws):
        alike = publication.flaws[table], publication.repairs.get(table, ""), table in publication.tables
        together.setdefault(alike, []).append(table)
    for (flaws, _, _), tables in together.items():
        yield _flaw(publication, tables, flaws)


def _flaw(publication: PublicationCheck, tables: Sequence[str], flaws: Sequence[str]) -> Finding:
    repair = publication.repairs.get(tables[0])
    remedy = "Sweeps find the changes that do not come through. "
    if repair:
        remedy += (
            "To stream them, publish everything: this blocks no reads or writes, but other subscribers will "
            "receive more as well, as far as policies let them."
        )
    elif publication.unsafe:
        remedy += (
            "Do not change the publication before each of its tables has a primary key or replica identity; "
            f"otherwise updates and deletes of these would fail: {', '.join(publication.unsafe)}."
        )
    else:
        remedy += "This command lists what is published."
    return _found(
        "warning" if tables[0] in publication.tables else "failed",
        f"not all changes of {', '.join(tables)} come through supabase_realtime: {'; '.join(flaws)}",
        remedy,
        psql(repair) if repair else _LIST,
    )


def _partitioned(table: str) -> Finding:
    # eulerto/wal2json, issue 259: "This is not supported."
    return _found(
        "warning",
        f"{table} is partitioned, and Realtime's decoder, wal2json, reports its partitions instead: sweeps "
        "find its changes",
        "If that is too slow, shorten PRIORITYD_SWEEP_INTERVAL_SECONDS.",
        "export PRIORITYD_SWEEP_INTERVAL_SECONDS=5",
    )
