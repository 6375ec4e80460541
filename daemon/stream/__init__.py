"""Hears of changes: the connection to Realtime, the listener that keeps it, the canary that tests it."""
