"""A stand-in for Supabase Realtime's `postgres_changes`, fed from the real write-ahead log.

It answers like version 2.129.8 as far as `postgres_changes` goes; broadcast and presence are not served. A
change's way: `replication` polls the log and has `pgoutput` decode it, `changes` turns rows into Realtime's
JSON and asks PostgreSQL who may see them, `subscriptions` knows who listens to what, `channel` and `socket`
carry the frames of `protocol`. What it believes of the real server, and who says so, is in
`tests/sandbox/BELIEFS.md`; these are the facts that a client can run into:

- A join is acknowledged first, the subscription starts with the `system` message that says ok.
- Delivery is at most once. The slot is temporary, so a lost backend loses what is committed until there is a
  new one, and clients are not notified. Nor are they of the quota, above which changes are dropped.
- With row level security, an INSERT or UPDATE comes only if the row, as named by its key, is visible to the
  subscriber's role *when the change is polled*; a DELETE carries the primary key only.
- One bad binding spoils the channel, which is told so once; it is not tried again.
- When the publication has other tables, every subscription is made anew, within a minute.
- A client that sends no heartbeat is not disconnected (for 75 s at least).
"""
