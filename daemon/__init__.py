"""The edges: what connects, waits, writes and serves. Depends on `core`, never vice versa."""
