"""What is announced of a change on record."""
