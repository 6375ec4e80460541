"""Settings that are missing, damaged or misspelt, and a port that is taken."""

from __future__ import annotations

import socket

from tests.checks.situation import Place, Situation, variables


def _take_port(place: Place) -> None:
    listener = place.open.enter_context(socket.create_server(("127.0.0.1", 0)))
    place.set(PRIORITYD_HTTP_PORT=listener.getsockname()[1])


def _env_file(content: bytes) -> object:
    def act(place: Place) -> None:
        (place.directory / ".env").write_bytes(content)

    return act


def _remove_env_file(place: Place) -> None:
    (place.directory / ".env").unlink()


def _url_under_another_name(place: Place) -> None:
    place.set(NEXT_PUBLIC_SUPABASE_URL=place.environment["SUPABASE_URL"], SUPABASE_URL=None)


def _key_under_another_name(place: Place) -> None:
    place.set(
        SUPABASE_SERVICE_KEY=place.environment["SUPABASE_SERVICE_ROLE_KEY"], SUPABASE_SERVICE_ROLE_KEY=None
    )


def _quote_key(place: Place) -> None:
    place.set(SUPABASE_SERVICE_ROLE_KEY=f'"{place.right["SUPABASE_SERVICE_ROLE_KEY"]}"')


_SET = "Set it in the environment"

SITUATIONS = [
    Situation(
        "the URL is set under another name",
        _url_under_another_name,
        "settings",
        "SUPABASE_URL is not set; did you mean NEXT_PUBLIC_SUPABASE_URL, which is set?",
        78,
        _SET,
        "export SUPABASE_URL=…",
    ),
    Situation(
        "the key is set under another name",
        _key_under_another_name,
        "settings",
        "is not set; did you mean SUPABASE_SERVICE_KEY, which is set?",
        78,
        _SET,
        "export SUPABASE_SERVICE_ROLE_KEY=…",
    ),
    Situation(
        "the key has quotes around it",
        _quote_key,
        "settings",
        "SUPABASE_SERVICE_ROLE_KEY or SUPABASE_SECRET_KEY: must be the key alone, on one line and without",
        78,
        _SET,
        "export SUPABASE_SERVICE_ROLE_KEY=…",
    ),
    Situation(
        "the URL is that of a database",
        variables(SUPABASE_URL="postgresql://postgres@localhost:5432/postgres"),
        "settings",
        "SUPABASE_URL: must be the project's URL, as in https://abcdefgh.supabase.co",
        78,
        _SET,
        "export SUPABASE_URL=…",
    ),
    Situation(
        "a setting is out of range",
        variables(PRIORITYD_BATCH_SIZE=0),
        "settings",
        "PRIORITYD_BATCH_SIZE: input should be greater than or equal to 1",
        78,
        _SET,
        "export PRIORITYD_BATCH_SIZE=…",
    ),
    Situation(
        ".env is not text",
        _env_file(b"SUPABASE_URL=\xff\n"),  # type: ignore[arg-type]
        "settings",
        ".env is not UTF-8 text",
        78,
        _SET,
        "",
        fix=_remove_env_file,
    ),
    Situation(
        "a variable is misspelt",
        variables(PRIORITYD_SWEEP_INTERVALL_SECONDS=7),
        "settings",
        "_SWEEP_INTERVALL_SECONDS in the environment (did you mean PRIORITYD_SWEEP_INTERVAL_SECONDS?)",
        0,
        "Correct the name or remove the variable",
        'export PRIORITYD_SWEEP_INTERVAL_SECONDS="$PRIORITYD_SWEEP_INTERVALL_SECONDS"; unset',
        outcome="warning",
    ),
    Situation(
        "a variable that resembles no other",
        variables(PRIORITYD_ZZZ=1),
        "settings",
        "unknown: PRIORITYD_ZZZ in the environment",
        0,
        "Correct the name or remove the variable",
        "unset PRIORITYD_ZZZ",
        outcome="warning",
    ),
    Situation(
        "a variable is misspelt in .env",
        _env_file(b"export PRIORITYD_LOGLEVEL=info\n"),  # type: ignore[arg-type]
        "settings",
        "PRIORITYD_LOGLEVEL in .env (did you mean PRIORITYD_LOG_LEVEL?)",
        0,
        "Correct the name or remove the variable",
        "",
        fix=_remove_env_file,
        outcome="warning",
    ),
    Situation(
        "the port is taken",
        _take_port,
        "metrics port",
        "PRIORITYD_HTTP_HOST, PRIORITYD_HTTP_PORT: can't listen on 127.0.0.1:",
        78,
        "Set PRIORITYD_HTTP_PORT to a free port",
        "export PRIORITYD_HTTP_PORT=0",
    ),
    Situation(
        "the address is not one of this machine's",
        variables(PRIORITYD_HTTP_HOST="192.0.2.1"),
        "metrics port",
        "PRIORITYD_HTTP_HOST, PRIORITYD_HTTP_PORT: can't listen on 192.0.2.1:",
        78,
        "Set PRIORITYD_HTTP_HOST to an address of this machine",
        "export PRIORITYD_HTTP_HOST=127.0.0.1",
    ),
]
