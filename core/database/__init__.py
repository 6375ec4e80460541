"""What the SQL functions answer, which of them this version needs, and how they get into a project."""
