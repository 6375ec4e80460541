"""What is to be looked at and when, and what counts as drift."""
