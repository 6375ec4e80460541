"""Announces recorded changes, and deletes old ones."""
