"""Task `stn-addition`: the sum of two digits, each distorted in a channel of its own (appendix A.1, table 4)."""

from __future__ import annotations

from paperbench.stn.export import export_model
from paperbench.stn.training import plan, run

__all__ = ["export_model", "plan", "run"]
