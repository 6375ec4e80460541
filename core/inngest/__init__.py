"""What Inngest accepts, how it fails, and what makes it obey a priority."""
