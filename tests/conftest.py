"""Settings of the whole suite."""

from __future__ import annotations

import os

# The suite runs in as many processes as there are cores: more threads in each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
