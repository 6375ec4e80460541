"""Measurements on the sandbox; each prints one JSON line: `python -m tests.benchmarks NAME`."""
