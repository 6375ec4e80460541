"""Receives changes: the connection to Realtime, and the listener that maintains it."""
