"""Worlds × flows: everything that priorityd does, in every schema that the sandbox has.

    python -m tests.worlds --world strict triggers --repositories 300

Each cell is *right*, or *refused*: at the installation or by `priorityd check`, with the reason. Anything
else is *wrong*, and makes the exit code 1. `place` is where the flows run (a database of one world behind the
sandbox's servers), `flows` and `installation` are the flows, and `matrix` runs them and reports the outcomes.
"""
