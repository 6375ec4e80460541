"""Chaos: everything that can break is broken, at random, while the application goes on working.

    python -m tests.chaos --minutes 20 --seed 7 --daemons 2

The parts are the real ones: PostgreSQL, the daemon as a process, the sandbox's servers, and between them and
the daemon a TCP proxy of our own. `workload` is the application, `faults` lists what can break, `breakages`,
`floods` and `alone` say how, `oracle` and `leaders` judge, `run` brings them together: break one thing or
some at once, heal, and measure how long any priority stays wrong. The seed decides what is done in which
order; how threads and processes interleave it can't decide.
"""
