"""Task `stn-mnist`: distorted digits (section 4.1, table 1)."""

from __future__ import annotations

from paperbench.stn.export import export_model
from paperbench.stn.predict import predict
from paperbench.stn.training import plan, run

__all__ = ["export_model", "plan", "predict", "run"]
