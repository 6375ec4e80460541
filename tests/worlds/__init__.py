"""Worlds × flows: what priorityd does, in every schema that the sandbox knows, and what comes of it.

    python -m tests.worlds --world strict triggers --repositories 300

Each cell is *right*, or *refused*: at the installation or by `priorityd check`, with the reason. Anything
else is *wrong*, and the exit code 1. `place` is where the flows happen (a database of one world behind the
sandbox's servers), `flows` and `installation` are what is done there, `matrix` runs it and says what came of
each.
"""
