"""A development stand-in for a Supabase project, on this machine alone.

Real: PostgreSQL 18, its write-ahead log, the migrations, the daemon. Stand-ins: the two Supabase
surfaces that the daemon and the documentation's snippets use, `/rest/v1/*` and `/realtime/v1/websocket`,
written to behave like PostgREST and Supabase Realtime where the official clients could tell the difference.
"""
