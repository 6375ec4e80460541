"""Queues jobs, releases them in order, and watches what becomes of them."""
