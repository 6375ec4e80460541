"""What jobs say about priority, and the order in which they are sent."""
