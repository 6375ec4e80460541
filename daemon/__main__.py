"""`python -m daemon` is `priorityd`."""

from daemon.cli import main

main()
