"""Task `stn-mnist`: distorted digits (section 4.1, table 1)."""

from __future__ import annotations

from paperbench.stn.predict import predict
from paperbench.stn.training import plan, run

__all__ = ["plan", "predict", "run"]
