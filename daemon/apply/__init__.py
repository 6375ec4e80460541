"""Turns hints into correct rows: the intake, the worker, and the recorder of changes."""
