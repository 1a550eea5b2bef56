from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vae import runs


@pytest.fixture(autouse=True)
def _runs_are_closed() -> Iterator[None]:
    """Closes the files of all runs that a test made."""
    yield
    while runs.OPEN:
        run = runs.OPEN.pop()
        run.log.close()
        run.directory.release()
