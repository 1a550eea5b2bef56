"""Settings of the whole suite."""

from __future__ import annotations

import os

import pytest

# The suite runs in as many processes as there are cores: more threads in each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a file runs in one process, and a long one that begins last runs alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: much of what the slow tests do is to wait for processes that they started."""
    return (os.cpu_count() or 1) + 1
