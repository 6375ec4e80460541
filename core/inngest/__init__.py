"""What Inngest takes and how it fails, and what makes it obey a priority."""
