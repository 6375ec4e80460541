"""What a change says, and what the listener does next."""
