"""Benchmarks on the sandbox; `python -m tests.benchmarks NAME` runs one and prints one line of JSON."""
