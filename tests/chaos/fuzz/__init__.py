"""Fuzzing: nonsense by the million, for everything that comes in from outside.

    python -m tests.chaos.fuzz --frames 900000 --answers 100000 --seed 1

Frames go over a real WebSocket to the daemon's listener, answers over real HTTP to its store. Between the
frames are changes that the listener must receive, so that a deaf one is found; every call of the store must
end with a well-formed answer or one of our errors.
"""
