"""How long a test waits for what must come, the same for all of them.

A limit is there to end a test that waits in vain, and to say where. It measures nothing: on a machine that
does other things too, what takes a moment takes many.
"""

from __future__ import annotations

from typing import Final

PATIENCE_SECONDS: Final = 60
