"""Queues jobs, releases them in order, and watches their progress."""
