"""Fixtures of the tests that compose configurations: an empty folder to stand in, and a user's own `./conf`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test stands in an empty folder: neither a `./conf` nor a `./data` of the developer's takes part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAPERBENCH_DATA", raising=False)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A user's own `./conf` with one experiment, `mine`, built on a shipped one."""
    folder = tmp_path / "conf"
    write(folder / "experiment/mine.yaml", "# @package _global_\ndefaults: [faster-rcnn, _self_]\noptim: {lr: 0.5}\n")
    return folder


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
