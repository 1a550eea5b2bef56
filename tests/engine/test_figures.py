"""Loss curves from a metrics file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.engine.figures import loss_curves, new_figure, save, smooth
from paperbench.errors import EnvironmentError_


def log(path: Path, *records: dict[str, float | None]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in records))
    return path


def training(*parts: str, steps: int = 30) -> list[dict[str, float | None]]:
    records: list[dict[str, float | None]] = [
        {"step": step, "train/loss": 2.0 / (step + 1), "train/lr": 0.1, "coco/AP": 3.0}
        | {f"train/loss_{name}": 1.0 / (step + 1) for name in parts}
        for step in range(steps)
    ]
    return records


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def test_smooth_keeps_a_constant_and_follows_a_change() -> None:
    np.testing.assert_allclose(smooth(np.full(50, 3.0)), 3.0)
    step = np.concatenate([np.zeros(100), np.ones(100)])
    course = smooth(step)
    assert course[99] == 0
    assert (np.diff(course[99:]) > 0).all()
    assert course[110] > 0.8
    np.testing.assert_array_equal(smooth(np.array([1.0, 5.0, 2.0])), [1, 5, 2])  # too few to smooth
    assert len(smooth(np.zeros(0))) == 0


def test_smooth_takes_noise_away() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 400)
    assert smooth(noise)[50:].std() < 0.4


def test_a_panel_for_the_loss_its_parts_and_the_rate(tmp_path: Path) -> None:
    whole = loss_curves(log(tmp_path / "a.jsonl", *training()), tmp_path / "a.png")
    with_parts = loss_curves(log(tmp_path / "b.jsonl", *training("x", "y")), tmp_path / "b.png")
    assert whole is not None
    assert with_parts is not None
    assert width(with_parts) == pytest.approx(1.5 * width(whole), abs=2)


def test_values_that_are_missing_or_were_not_finite_are_passed_over(tmp_path: Path) -> None:
    records = [*training("x", "y", steps=5), {"step": 6, "train/loss": None}, {"step": 7, "coco/AP": 2.0}]
    assert loss_curves(log(tmp_path / "m.jsonl", *records), tmp_path / "m.png") is not None


def test_negative_losses_and_a_single_record_are_drawn(tmp_path: Path) -> None:
    bounds = [{"step": step, "train/loss": -120.0 + step} for step in range(5)]
    assert loss_curves(log(tmp_path / "m.jsonl", *bounds), tmp_path / "m.png") is not None
    assert loss_curves(log(tmp_path / "one.jsonl", bounds[0]), tmp_path / "one.png") is not None


def test_without_losses_nothing_is_written(tmp_path: Path) -> None:
    assert loss_curves(tmp_path / "none.jsonl", tmp_path / "out.png") is None
    assert loss_curves(log(tmp_path / "m.jsonl", {"step": 1, "train/lr": 0.1}), tmp_path / "out.png") is None
    assert not (tmp_path / "out.png").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_, match=r"file/figure\.png"):
        save(new_figure(2, 2), tmp_path / "file" / "figure.png")


def test_figures_need_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from paperbench.engine.figures import new_figure, save\n"
        "save(new_figure(1, 1), pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert (tmp_path / "x.png").is_file()
