"""Faster R-CNN through the program: interrupted, resumed, evaluated by one process and by two, shown pictures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from paperbench.data import shapes
from paperbench.engine.checkpoints import CheckpointStore

OVERRIDES = [
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "precision=float32",
    "train.samples=24",
    "train.checkpoint_every=4",
]


def paperbench(*arguments: str, code: int = 0) -> Any:
    done = subprocess.run([sys.executable, "-m", "paperbench", *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    loaded = CheckpointStore(directory / "checkpoints").load("last")
    assert loaded is not None
    return {name: value for name, value in loaded[0]["module"].items() if isinstance(value, torch.Tensor)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "run"
    paperbench("train", "faster-rcnn", *OVERRIDES, "--run-dir", str(directory))
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_weights(trained: Path, tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "paperbench", "train", "faster-rcnn", *OVERRIDES, "--run-dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (directory / "checkpoints" / "last.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() == (3 if number == signal.SIGTERM else -signal.SIGKILL)
    assert paperbench("resume", str(directory))["status"] == "done"
    expected, found = weights(trained), weights(directory)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(trained: Path, tmp_path: Path) -> None:
    one, two = (
        paperbench("eval", "faster-rcnn", f"checkpoint={trained}", f"nproc={n}", "--run-dir", str(tmp_path / str(n)))
        for n in (1, 2)
    )
    timed = {"seconds_per_image"}
    assert one["metrics"].keys() == two["metrics"].keys()
    for name in one["metrics"].keys() - timed:
        assert one["metrics"][name] == two["metrics"][name], name
    same = json.loads((trained / "results.json").read_text())["metrics"]
    assert one["metrics"]["coco/AP"] == same["coco/AP"]


@pytest.mark.slow
def test_two_processes_train(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    results = paperbench("train", "faster-rcnn", *OVERRIDES, "nproc=2", "--run-dir", str(directory))
    assert results["status"] == "done"
    assert all(torch.isfinite(value.float()).all() for value in weights(directory).values())


@pytest.mark.slow
def test_predict_draws_and_names_what_it_finds(trained: Path, tmp_path: Path) -> None:
    scenes = shapes.read(split="test", images=1, size=96)
    Image.fromarray(scenes.decode(0)).save(tmp_path / "scene.png")
    answers = paperbench(
        "predict",
        str(trained),
        str(tmp_path / "scene.png"),
        "--output",
        str(tmp_path / "out"),
        "--score-threshold",
        "0.05",
    )
    with Image.open(tmp_path / "out" / "scene.png") as picture:
        assert min(picture.size) >= 96
    assert len(answers) == 1
    for found in answers[0]["detections"]:
        assert found["class"] in scenes.classes
        assert 0.05 <= found["score"] <= 1


def test_figures_are_drawn(trained: Path) -> None:
    drawn = {file.name for file in (trained / "figures").iterdir()}
    assert {"losses.png", "precision_recall.png", "proposal_recall.png", "detections.png"} <= drawn
