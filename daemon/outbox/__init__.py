"""Announces the recorded changes, and keeps the record short."""
