"""Announces the changes on record, and keeps the record short."""
