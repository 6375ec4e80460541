"""`priorityd check` in wrong situations: what it finds, what it says to do, and whether doing that helps.

`situation` is what an entry of the table consists of and where it takes place; `run` makes it wrong, checks,
does what was said and checks again. What can be wrong is in `settings`, `addresses`, `keys`, `database`,
`writes`, `publication`, `stream` and `inngest`. A remedy that is a command is typed exactly as it was printed
(`shell`). `python -m tests.checks` prints the table.
"""
