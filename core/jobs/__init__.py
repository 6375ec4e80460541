"""What jobs say of priority, and in which order they go."""
