from __future__ import annotations

from pathlib import Path

import pytest

from paperbench import catalog
from tests.engine import toy
from tests.sweeps.launchers import counter


@pytest.fixture
def counter_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the counter known here and in every process that is started."""
    monkeypatch.setitem(catalog.TASKS, "counter", counter.SPEC)
    for name, value in toy.site(tmp_path / "site", counter.SPEC).items():
        monkeypatch.setenv(name, value)
