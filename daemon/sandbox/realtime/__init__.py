"""A stand-in for Supabase Realtime's `postgres_changes`, fed from the real write-ahead log.

It answers like version 2.28.40, frame by frame but for one thing, as far as `postgres_changes` goes;
broadcast and presence are not served. A change's way: `replication` polls the log and has `pgoutput` decode
it, `changes` turns rows into Realtime's JSON and asks PostgreSQL who may see them, `subscriptions` knows who
listens to what, `channel` and `socket` carry the frames of `protocol`. The facts that a client can run into
are kept:

- A join is acknowledged first, the subscription starts with the `system` message that says ok.
- Delivery is at most once. The slot is temporary, so a lost backend loses what is committed until there is a
  new one, and clients are not notified.
- With row level security, an INSERT or UPDATE comes only if the row, as named by its key, is visible to the
  subscriber's role *when the change is polled*; a DELETE carries the primary key only.
- One bad binding spoils the channel; it is tried again every 5 to 10 seconds.
- A binding with an `event` gets that kind only, as from version 2.122.0; 2.28.40 sends every kind with the
  ids of all bindings. That is the one thing taken from 2.122.0: it also sends no `presence_state`, words
  errors differently and does not repeat them.
- A client that sends no heartbeat is not disconnected (for 75 s at least).
"""
