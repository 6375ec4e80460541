"""Decisions without side effects: no I/O, no clock, no framework.

Everything here is given what it needs (`now` included) and returns what should happen.
"""

__version__ = "1.0.0rc1"
