"""The progress of a run, as its process tells it to a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.sweeps.progress import Progress, ProgressFile, read


def test_progress_is_told_through_a_file_that_goes_with_the_run(tmp_path: Path) -> None:
    now = 0.0
    file = ProgressFile(tmp_path, clock=lambda: now)
    assert read(tmp_path) is None
    file.progress("train", 1, 9, {"loss": 0.5, "bad": float("nan")})
    assert read(tmp_path) == Progress("train", 1, 9, {"loss": 0.5})
    file.progress("train", 2, 9, {})
    assert read(tmp_path) == Progress("train", 1, 9, {"loss": 0.5}), "not written at every step"
    file.progress("evaluate", 1, 4, {})
    assert read(tmp_path) == Progress("evaluate", 1, 4, {})
    now = 1.0
    file.progress("evaluate", 2, 4, {})
    assert read(tmp_path) == Progress("evaluate", 2, 4, {})
    file.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"phase": "x"}', '{"phase": "x", "done": 1, "total": null, "values": {}}']
)
def test_progress_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".progress.json").write_text(content)
    assert read(tmp_path) is None
    ProgressFile(tmp_path).start("", {})
    assert list(tmp_path.iterdir()) == [], "left by a session that was killed"


def test_progress_never_fails_a_run(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "nowhere")
    file.progress("train", 1, 9, {})
    file.close()
