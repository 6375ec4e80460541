"""Which daemon does the timer work: the lease."""
