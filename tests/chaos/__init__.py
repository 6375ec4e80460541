"""Chaos: breaks everything that can break, at random, while the application goes on working.

    python -m tests.chaos --minutes 20 --seed 7 --daemons 2

The parts are the real ones: PostgreSQL, the daemon as a process, the sandbox's servers, and between them and
the daemon a TCP proxy of our own. `workload` is the application, `faults` lists what can break, `breakages`,
`floods` and `alone` say how, `oracle` and `leaders` judge, and `run` brings them together: it breaks one or
several things at once, heals them, and measures how long any priority stays wrong. The seed determines what
is done in which order, but not how threads and processes interleave.
"""
