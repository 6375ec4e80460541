"""Triggers, checks and rules of the application that refuse what the daemon writes."""

from __future__ import annotations

from tests.checks.situation import Place, Situation, sql

_SHOWS = "select pg_get_functiondef('"


def trigger(body: str, *, path: str = "") -> str:
    """A trigger of the application's, for each row that changes."""
    return f"""create function application_log() returns trigger language plpgsql {path} as $f$
        begin {body} return new; end $f$;
        create trigger application_log before update on tracked_repositories
            for each row execute function application_log()"""


_ELSEWHERE = (
    "create schema app; create table app.events (id uuid); grant usage on schema app to service_role;"
)
_GRANT = "grant insert on app.events to service_role;"
_QUALIFIED = trigger("insert into app.events values (new.id);").partition(";\n        create trigger")[0]


def _unchanged(place: Place) -> None:
    """Nothing remains of what was tried."""
    row = place.stack.app.connection.execute("select count(*) from app.events").fetchone()
    assert row == (0,)


SITUATIONS = [
    Situation(
        "a trigger that names a table without its schema",
        sql(_ELSEWHERE, _GRANT, trigger("insert into events values (new.id);")),
        "writes",
        'no row can be written: relation "events" does not exist (42P01); '
        "the cause is the trigger application_log, which calls application_log()",
        1,
        "In the function, qualify that name with its schema",
        _SHOWS,
        fix=sql(_QUALIFIED.replace("create function", "create or replace function")),
        after=_unchanged,
    ),
    Situation(
        "a trigger that may not write its log",
        sql(_ELSEWHERE, trigger("insert into app.events values (new.id);")),
        "writes",
        "permission denied for table events (42501); the cause is the trigger application_log",
        1,
        "Change it so that the role may update every tracked row.",
        _SHOWS,
        fix=sql(_GRANT),
        after=_unchanged,
    ),
    Situation(
        "a trigger that raises",
        sql(trigger("raise exception 'priorities are frozen';")),
        "writes",
        "no row can be written: priorities are frozen (P0001); the cause is the trigger application_log",
        1,
        "accepts changes of priority, is_workspace_repo, workspace_count and manual_priority.",
        _SHOWS,
        fix=sql("drop trigger application_log on tracked_repositories"),
    ),
    Situation(
        "a trigger that keeps the old priority, without an error",
        sql(trigger("new.priority := old.priority;")),
        "writes",
        "the row stays as it is, without an error; the cause is the trigger application_log",
        1,
        "Change it so that it accepts changes of priority",
        "pg_get_triggerdef",
        fix=sql("drop trigger application_log on tracked_repositories"),
    ),
    Situation(
        "a trigger that drops every change",
        sql(trigger("return null;")),
        "writes",
        "the row stays as it is, without an error; the cause is the trigger application_log",
        1,
        "Change it so that it accepts changes of priority",
        "pg_get_triggerdef",
        fix=sql("drop trigger application_log on tracked_repositories"),
    ),
    Situation(
        "a check constraint that forbids high",
        sql("alter table tracked_repositories add constraint no_high check (priority <> 'high')"),
        "writes",
        "the cause is the constraint no_high of tracked_repositories",
        1,
        "Change it so that it accepts changes of priority",
        "pg_get_constraintdef(oid) from pg_constraint where conname = 'no_high'",
        fix=sql("alter table tracked_repositories drop constraint no_high"),
    ),
    Situation(
        "a deferred constraint's trigger that raises",
        sql(
            """create function late() returns trigger language plpgsql as
               $f$ begin raise exception 'too late'; end $f$;
               create constraint trigger late after update on tracked_repositories
                   deferrable initially deferred for each row execute function late()"""
        ),
        "writes",
        "too late (P0001); the cause is the trigger late, which calls late()",
        1,
        "Change it so that it accepts changes of priority",
        _SHOWS,
        fix=sql("drop trigger late on tracked_repositories"),
    ),
    Situation(
        "some rows are refused",
        sql(
            "insert into tracked_repositories (organization_name) values ('frozen')",
            trigger("if new.organization_name = 'frozen' then raise exception 'it is frozen'; end if;"),
        ),
        "writes",
        "1 of the 2 rows tried can't be written: it is frozen (P0001); the cause is the trigger",
        0,
        "Change it so that it accepts changes of priority",
        _SHOWS,
        fix=sql("drop trigger application_log on tracked_repositories"),
        outcome="warning",
    ),
]
