"""Finds and repairs wrong rows that no change named: the sweeper and the resyncer."""
