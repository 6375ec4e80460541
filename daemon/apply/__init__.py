"""Turns hints into correct rows: intake, worker, and the recorder of what they changed."""
