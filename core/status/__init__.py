"""What the state means for an operator."""
