"""What is announced about a recorded change."""
