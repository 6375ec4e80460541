"""Brings hints to the rows: intake, worker, and the recorder of what they changed."""
