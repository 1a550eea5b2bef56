"""A module after whose import there is no room for one more process."""

from __future__ import annotations

import os


def _no_room() -> int:
    raise BlockingIOError(11, "Resource temporarily unavailable")


os.fork = _no_room
