"""What an application calls in its own process."""
