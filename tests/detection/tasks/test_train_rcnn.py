"""`paperbench train`, `resume`, `eval` and `predict` of detectors on given proposals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.detection.training import multi_stage as stages
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.signals import StopFlag

NETS = ("fast-rcnn", "sppnet", "rcnn")


def paperbench(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def results(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "results.json").read_text())["metrics"]


@pytest.mark.parametrize("name", NETS)
def test_from_training_to_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paperbench("train", name, "--smoke", "--run-dir", "run")
    trained = results("run")
    assert {"coco/AP50", "voc07/mAP", "seconds_per_image", "proposals/recall50@100"} <= trained.keys()
    assert not (Path("run") / "features").exists()

    paperbench("eval", name, "checkpoint=run", "--run-dir", "again")
    assert results("again")["coco/AP"] == pytest.approx(trained["coco/AP"])
    assert list(Path("again/detections").glob("*.txt"))

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)).save("picture.png")
    (found,) = json.loads(paperbench("predict", "run", "picture.png", "--score-threshold", "0.1", "--json"))
    assert Path(found["picture"]).is_file()


def test_variants_and_times_are_measured_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["evaluation.variants=[no-boxes,svd,svm]", "model.svd=[8,8]", "evaluation.timed_images=2"]
    paperbench("train", "fast-rcnn", "--smoke", *overrides, "evaluation.bootstrap=10", "--run-dir", "run")
    metrics = results("run")
    for name in ("no-boxes", "svd", "svm"):
        assert {f"{name}/voc07/mAP", f"{name}/coco/AP50/low", f"{name}/seconds_per_image"} <= metrics.keys()
    parts = ("conv", "pool", "fc6", "fc7", "other")
    for prefix in ("", "svd/"):
        assert sum(metrics[f"{prefix}share/{part}"] for part in parts) == pytest.approx(100)
        assert metrics[f"{prefix}seconds/total"] > 0


@pytest.mark.parametrize(
    ("name", "overrides", "folders"),
    [
        ("fast-rcnn", ["model.boxes=stage-wise"], ["2-net", "3-boxes"]),
        ("sppnet", [], ["1-convolutions", "2-net"]),
        ("rcnn", ["model.fine_tune=false", "model.features=pool5"], []),
    ],
)
def test_a_run_that_ends_between_two_stages_goes_on(
    name: str, overrides: list[str], folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paperbench("train", name, "--smoke", *overrides, "--run-dir", "whole")
    assert sorted(path.name for path in Path("whole/checkpoints").iterdir() if path.is_dir()) == folders

    last = "_train_boxes" if "3-boxes" in folders else "_fit_linear"
    with monkeypatch.context() as patch:
        patch.setattr(stages.MultiStageTraining, last, lambda self: (_ for _ in ()).throw(RuntimeError("killed")))
        paperbench("train", name, "--smoke", *overrides, "--run-dir", "broken", code=1)
    paperbench("resume", "broken")
    a, b = (load_for_evaluation(Path(folder))[0]["module"] for folder in ("whole", "broken"))
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
    ours, theirs = results("whole"), results("broken")
    assert {key: ours[key] for key in ours if key.startswith(("coco", "voc"))} == {
        key: theirs[key] for key in theirs if key.startswith(("coco", "voc"))
    }


def test_a_stop_while_svms_are_fitted_keeps_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    looks = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(StopFlag, "__bool__", lambda self: (Path("run") / "features").is_dir() and next(looks) > 2)
        paperbench("train", "rcnn", "--smoke", "--run-dir", "run", code=3)
    assert len(list(Path("run/features/0").glob("*.npy"))) >= 2
    paperbench("resume", "run")
    assert not (Path("run") / "features").exists()
    assert "coco/AP50" in results("run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "fast-rcnn", "model=faster-rcnn"], "model.name"),
        (["train", "fast-rcnn", "proposals.method=file"], "method=file needs one"),
        (["train", "fast-rcnn", "evaluation.variants=[svd]"], "svd needs model.svd"),
        (["train", "sppnet", "train.evaluate_every=2"], "complete after its last stage only"),
        (["train", "rcnn", "model.context=40"], "leaves nothing"),
        (["train", "rcnn", "model.weights=none.pth"], "no such file"),
        (["eval", "fast-rcnn"], "checkpoint=RUN"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in paperbench(*words, "--smoke", code=2)
    assert list(tmp_path.iterdir()) == []
