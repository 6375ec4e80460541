"""Talks to Inngest: sends events, answers one, asks its API."""
