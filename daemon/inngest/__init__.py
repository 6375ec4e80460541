"""Talks to Inngest: sends events, hosts a function, queries its API."""
