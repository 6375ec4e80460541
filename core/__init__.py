"""Decisions without side effects: no I/O, no clock, no framework.

Everything here takes what it needs (`now` included) as arguments and returns what should happen.
"""

__version__ = "1.0.0rc1"
