"""What `priorityd check` says of the publication that Realtime reads.

Publishing a table that has no primary key and no replica identity makes its updates and deletes fail. So no
command here publishes such a table, or more of a publication that holds one.
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
    """What keeps changes from coming, and nothing that would make the application's writes fail."""
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
            "Create it with the tables that are followed. It makes nobody wait.",
            psql("create publication supabase_realtime" + (f" for table {tables}" if tables else "")),
        )
    elif tables:
        yield _found(
            "failed",
            f"not in the publication supabase_realtime: {tables}",
            f"Add what is missing, as {publication.owner}, to whom it belongs. It makes nobody wait.",
            psql(_ADD.format(tables)),
        )


def _unidentified(publication: PublicationCheck, table: str) -> Finding:
    """Given an identity, a table can be published: the same command does both."""
    partitioned = table in publication.partitioned
    effect = "it is not published, or its updates and deletes would fail"
    statements = [_IDENTIFY.format(table)]
    if table not in publication.missing:
        effect = "as it is published, its updates and deletes fail"
    elif publication.exists:
        statements.append(_ADD.format(f"public.{table}"))
    remedy = (
        "A primary key is best. At least give it a replica identity: that locks the table for a moment, for "
        "which this waits no longer than 2 s, and has each change log the whole row."
    )
    if partitioned:
        remedy = "Give each partition a primary key or a replica identity; then apply the migrations again."
    return _found(
        "failed",
        f"{table} has no primary key and no replica identity{' in each partition' if partitioned else ''}; "
        f"{effect}",
        remedy,
        _LIST if partitioned else psql("; ".join(statements)),
    )


def _flawed(publication: PublicationCheck) -> Iterator[Finding]:
    """What does not come through of published tables; one finding for those of which the same is true."""
    together: dict[tuple[tuple[str, ...], str, bool], list[str]] = {}
    for table in sorted(publication.flaws):
        alike = publication.flaws[table], publication.repairs.get(table, ""), table in publication.tables
        together.setdefault(alike, []).append(table)
    for (flaws, _, _), tables in together.items():
        yield _flaw(publication, tables, flaws)


def _flaw(publication: PublicationCheck, tables: Sequence[str], flaws: Sequence[str]) -> Finding:
    repair = publication.repairs.get(tables[0])
    remedy = "What does not come is found by sweeps. "
    if repair:
        remedy += (
            "To have it streamed, publish all of it: nobody waits for that, but whoever else listens hears "
            "more, as far as policies let them."
        )
    elif publication.unsafe:
        remedy += (
            "Leave the publication as it is until each of its tables has a primary key or a replica "
            f"identity, or their updates and deletes fail: {', '.join(publication.unsafe)}."
        )
    else:
        remedy += "This lists what is published."
    return _found(
        "warning" if tables[0] in publication.tables else "failed",
        f"of {', '.join(tables)} not all comes through supabase_realtime: {'; '.join(flaws)}",
        remedy,
        psql(repair) if repair else _LIST,
    )


def _partitioned(table: str) -> Finding:
    # eulerto/wal2json, issue 259: "This is not supported."
    return _found(
        "warning",
        f"{table} is partitioned, and wal2json, by which Realtime reads, names its partitions instead: "
        "its changes are found by sweeps",
        "If that is too slow, shorten PRIORITYD_SWEEP_INTERVAL_SECONDS.",
        "export PRIORITYD_SWEEP_INTERVAL_SECONDS=5",
    )
