"""How long every test waits for what must come.

The limit only ends a test that would wait forever, and shows where. It measures nothing: on a busy machine,
what normally takes a moment may take long.
"""

from __future__ import annotations

from typing import Final

PATIENCE_SECONDS: Final = 60
