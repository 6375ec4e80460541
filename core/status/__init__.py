"""What the state means for its operator."""
