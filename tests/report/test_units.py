"""A value and its interval are in one unit, that of the paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paperbench.report.reproduction import _over_images


@pytest.mark.parametrize("factor", [1.0, 100.0, -1.0])
def test_an_interval_over_images_has_its_cell_s_factor(factor: float) -> None:
    cell: Any = SimpleNamespace(metric="coco/AP50", samples=None, factor=factor)
    found = _over_images(cell, {"metrics": {"coco/AP50/low": 2.0, "coco/AP50/high": 3.0}})
    assert found == (2.0 * factor, 3.0 * factor)
