"""Realtime as it is set elsewhere: what larger plans of Supabase's allow, and what a test can wait for."""

from __future__ import annotations

import math
from typing import Final

from priorityd.daemon.sandbox.realtime.settings import RealtimeSettings

UNMETERED: Final = RealtimeSettings(events_per_second=math.inf)
"""For what floods the stream, and is about the daemon and not about the quota."""
TEAM: Final = RealtimeSettings(events_per_second=2500.0)
"""As on the plan of that name; with several daemons each change counts for each of them."""
ATTENTIVE: Final = RealtimeSettings(publication_seconds=0.2)
"""Looks at the publication with every poll, and not once a minute."""
