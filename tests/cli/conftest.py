import pytest

from tests.user_folder import _elsewhere, conf

__all__ = ["_elsewhere", "conf"]


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page as wide as in a pipe; workers of pytest-xdist have another one."""
    monkeypatch.setenv("COLUMNS", "118")
