"""Other settings of Realtime: those of Supabase's larger plans, and those that tests can wait for."""

from __future__ import annotations

import math
from typing import Final

from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings

UNMETERED: Final = RealtimeSettings(events_per_second=math.inf)
"""For tests that flood the stream, and are about the daemon, not the quota."""
TEAM: Final = RealtimeSettings(events_per_second=2500.0)
"""As on the plan of that name; with several daemons, each change counts once for each of them."""
ATTENTIVE: Final = RealtimeSettings(publication_seconds=0.2)
"""Looks at the publication with every poll, instead of once a minute."""
