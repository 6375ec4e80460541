"""What an application calls right after it has changed a workspace."""
