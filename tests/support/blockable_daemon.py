"""`priorityd` with one thing added: SIGUSR1 blocks its event loop for as many seconds as $BLOCK_SECONDS says.

Python runs signal handlers in the main thread, between two steps of whatever runs there: the event loop.
"""

import os
import signal
import time

from priorityd.daemon.cli import main

signal.signal(signal.SIGUSR1, lambda *_: time.sleep(float(os.environ["BLOCK_SECONDS"])))

if __name__ == "__main__":
    main()
