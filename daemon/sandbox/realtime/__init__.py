"""A stand-in for Supabase Realtime's `postgres_changes`, fed from the real write-ahead log.

It answers like version 2.129.8 with regard to `postgres_changes`; broadcast and presence are not served. The
path of a change: `replication` polls the log and decodes it with `pgoutput`, `changes` turns rows into
Realtime's JSON and asks PostgreSQL who may see them, `subscriptions` knows who is subscribed to what, and
`channel` and `socket` carry the frames of `protocol`. `tests/sandbox/BELIEFS.md` lists what is assumed about
the real server, with evidence. What a client may notice:

- A join is acknowledged first; the subscription starts with a `system` message with status ok.
- Delivery is at most once. The slot is temporary: when its backend is lost, what is committed before there
  is a new one is lost as well. Clients are not notified of that, or of changes dropped above the quota.
- With row level security, an INSERT or UPDATE is sent only if the row, found by its key, is visible to the
  subscriber's role *when the change is polled*; a DELETE carries the primary key only.
- One bad binding spoils the channel: it gets one error, and the subscription is not retried.
- When the publication's tables change, every subscription is recreated, within a minute.
- A client that sends no heartbeat is not disconnected (for at least 75 s).
"""
