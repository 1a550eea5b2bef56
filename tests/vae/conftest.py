from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vae import runs


@pytest.fixture(autouse=True)
def _close_runs() -> Iterator[None]:
    """Close the files of all runs of a test."""
    yield
    while runs.OPEN:
        run = runs.OPEN.pop()
        run.log.close()
        run.directory.release()
