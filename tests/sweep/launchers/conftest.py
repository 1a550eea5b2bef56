from __future__ import annotations

from pathlib import Path

import pytest

from paperbench import catalog
from tests.sweep.launchers import counter, toys


@pytest.fixture
def counter_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the counter known here and in every process that is started."""
    monkeypatch.setitem(catalog.TASKS, "counter", counter.SPEC)
    for name, value in toys.environment(tmp_path / "site").items():
        monkeypatch.setenv(name, value)
