"""Which daemon does the timed work: the lease."""
