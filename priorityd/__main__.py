"""`python -m priorityd` is `priorityd`."""

from priorityd.daemon.cli import main

main()
