"""Calls the SQL functions: the store, its HTTP client and key, and waiting for the schema."""
