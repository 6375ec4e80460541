"""What repairs wait for, and how much they take at a time."""
