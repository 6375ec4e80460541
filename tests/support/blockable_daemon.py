"""`priorityd` with one addition: SIGUSR1 blocks its event loop until the FIFO $BLOCK_UNTIL is written to.

Python runs signal handlers in the main thread, between two steps of what runs there: the event loop.
"""

import os
import signal
from pathlib import Path

from priorityd.daemon.cli import main

signal.signal(signal.SIGUSR1, lambda *_: Path(os.environ["BLOCK_UNTIL"]).read_bytes())

if __name__ == "__main__":
    main()
