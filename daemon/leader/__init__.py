"""Decides which daemon does the timer work."""
