"""A development stand-in for a Supabase project, on one machine.

PostgreSQL 18, its write-ahead log, the migrations and the daemon are real. `/rest/v1/*` and
`/realtime/v1/websocket` are stand-ins: they behave like PostgREST and Supabase Realtime wherever the daemon
or the official clients could notice a difference.
"""
