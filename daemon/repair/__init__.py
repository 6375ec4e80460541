"""Finds what no change named: the sweeper and the resyncer."""
