"""What `priorityd check` makes of the answer of a real database, and what comes of doing as it says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import TypeAdapter

from priorityd.daemon.cli.check.database import catalog_findings
from priorityd.daemon.cli.check.stream import explained
from priorityd.daemon.cli.finding import Finding
from priorityd.daemon.database.rows import DatabaseCheck
from tests.support.world import World, session

if TYPE_CHECKING:
    from tests.support.database import Database

_CHECK = TypeAdapter(DatabaseCheck)
TAKE_OUT = "alter publication supabase_realtime drop table workspace_repositories"
TAKE_KEY = "alter table workspace_repositories drop constraint workspace_repositories_pkey"


@pytest.fixture
def world(database: Database) -> World:
    return session(database)


def checked(world: World) -> DatabaseCheck:
    return _CHECK.validate_python(world.call("check_workspace_priorities"))


def findings(world: World) -> list[Finding]:
    return [finding for finding in catalog_findings(checked(world)) if finding.step == "publication"]


def obey(world: World, finding: Finding) -> None:
    command = re.search(r'-c "(.*)"$', finding.command)
    assert command
    world.execute(command[1])


def test_no_advice_makes_the_application_s_deletes_fail(world: World) -> None:
    repository = world.tracked()
    workspace = world.add(repository)
    world.execute(f"{TAKE_OUT}; {TAKE_KEY}")
    (finding,) = findings(world)
    assert (finding.outcome, "would fail" in finding.text) == ("failed", True)
    obey(world, finding)
    assert [finding.outcome for finding in findings(world)] == ["ok"]
    world.remove(repository, workspace)


def test_deletes_that_fail_because_a_table_is_published_are_told(world: World) -> None:
    world.execute(TAKE_KEY)
    (finding,) = findings(world)
    assert finding.text.endswith("; because it is published, its updates and deletes fail")
    obey(world, finding)
    assert [finding.outcome for finding in findings(world)] == ["ok"]


def test_what_a_publication_leaves_out_is_told(world: World) -> None:
    world.execute("alter publication supabase_realtime set (publish = 'insert, update')")
    (finding,) = findings(world)
    assert finding.outcome == "warning"
    assert finding.text == (
        "not all changes of tracked_repositories, workspace_priority_heartbeats, workspace_repositories come"
        " through supabase_realtime: deletes are not published"
    )


def test_no_advice_publishes_more_of_a_table_that_can_t_name_its_rows(world: World) -> None:
    world.execute("alter publication supabase_realtime set (publish = 'insert')")
    world.execute("create table notes (word text); alter publication supabase_realtime add table notes")
    (finding,) = findings(world)
    assert finding.remedy.endswith("updates and deletes of these would fail: notes.")
    obey(world, finding)
    world.execute("insert into notes values ('a'); delete from notes where word = 'a'")


def test_a_partitioned_table_is_found_by_sweeps_whatever_the_publication_says(world: World) -> None:
    world.execute(
        """alter publication supabase_realtime set (publish_via_partition_root = true);
        drop table workspace_repositories;
        create table workspace_repositories (
            id uuid primary key default gen_random_uuid(), workspace_id uuid, repository_id uuid
        ) partition by hash (id);
        alter publication supabase_realtime add table workspace_repositories"""
    )
    (finding,) = findings(world)
    assert finding.outcome == "warning"
    assert finding.text.startswith("workspace_repositories is partitioned, and Realtime's decoder, wal2json")


def test_a_stream_that_stays_silent_is_explained_by_a_decoder_that_is_refused(world: World) -> None:
    listed = world.execute(
        "select setting from pg_settings where name = 'output_plugin_libraries'"
    ).fetchone()
    assert checked(world).refuses_wal2json is (listed is not None and "wal2json" not in listed[0])
    silent = Finding("change stream", "failed", "it is joined", "Restart it.")
    found = replace(checked(world), refuses_wal2json=False)
    assert explained(silent, found) == silent
    refused = explained(silent, replace(found, refuses_wal2json=True))
    assert refused.text == "it is joined; PostgreSQL refuses wal2json, which Realtime needs"
    assert "output_plugin_libraries" in refused.remedy
