"""Which repositories to look at and when, and what counts as drift."""
