"""Interprets changes, and decides what the listener does next."""
