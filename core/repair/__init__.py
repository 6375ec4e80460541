"""When repairs run, and how many rows they take at a time."""
