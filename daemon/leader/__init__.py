"""Asks for the lease."""
