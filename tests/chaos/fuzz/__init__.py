"""Nonsense by the million, for everything that comes in from outside.

    python -m tests.chaos.fuzz --frames 900000 --answers 100000 --seed 1

Frames come over a real WebSocket to the daemon's listener, answers over real HTTP to its store. Between the
frames are changes that must be heard, so that a listener that has gone deaf is found; every call of the store
must end with a well-formed answer or one of our errors.
"""
