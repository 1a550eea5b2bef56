"""`paperbench proposals`: files that can be read back, a network's boxes, and errors before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.detection.proposals.sets import read


def paperbench(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_a_networks_boxes_are_written_and_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paperbench("train", "faster-rcnn", "--smoke", "--run-dir", "rpn")
    paperbench("proposals", "rpn-proposals", "--smoke", "proposals.run=rpn", "data.short_side=96", "--run-dir", "a")
    found = read(Path("a/proposals/test.npz"))
    assert (found.method, found.split, found.settings) == ("rpn", "test", {"run": str(tmp_path / "rpn")})
    assert len(found) == 4
    assert all(0 < len(boxes) <= 50 for boxes in found.boxes)

    files = [f"proposals.{split}_file=a/proposals/{split}.npz" for split in ("train", "test")]
    paperbench("proposals", "rpn-proposals", "--smoke", "proposals.method=file", *files, "--run-dir", "b")
    a, b = (json.loads((Path(run) / "results.json").read_text())["metrics"] for run in "ab")
    assert a == b
    assert {"proposals/recall50@100", "train/proposals/AR@100", "proposals/per_image"} <= a.keys()
    assert a["proposals/recall50@2000"] == a["proposals/recall50@100"]  # no image has more
    head, *curve = Path("a/proposals/recall_test.csv").read_text().splitlines()
    assert head == "iou,recall@100"
    assert len(curve) == 11

    said = paperbench("proposals", "rpn-proposals", "proposals.run=a", "--smoke", code=2)
    assert "a run of task detect-proposals" in said


def test_a_trainings_own_proposals_are_computed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paperbench("proposals", "fast-rcnn", "--smoke", "proposals.train_count=9", "--run-dir", "a")
    assert len(read(Path("a/proposals/train.npz"))) == 6
    assert max(len(boxes) for boxes in read(Path("a/proposals/train.npz")).boxes) == 9
    kept = set(Path("outputs/proposals").rglob("*.npy"))
    assert len(kept) == 10
    paperbench("train", "fast-rcnn", "--smoke", "--run-dir", "b")
    assert set(Path("outputs/proposals").rglob("*.npy")) == kept


def test_the_numbers_of_a_split_are_those_it_has_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def metrics(*splits: str) -> dict[str, float]:
        run = "-".join(splits)
        paperbench("proposals", "sliding-windows", "--smoke", f"splits=[{','.join(splits)}]", "--run-dir", run)
        return json.loads((Path(run) / "results.json").read_text())["metrics"]

    both, test = metrics("train", "test"), metrics("test")
    of_train = {name: value for name, value in both.items() if name.startswith("train/")}
    assert {name: value for name, value in both.items() if name not in of_train} == test
    assert of_train.keys() == {f"train/{name}" for name in test}
    assert [of_train[f"train/{name}"] for name in test] != list(test.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rpn-proposals"], "needs a trained run"),
        (["rpn-proposals", "proposals.run=none"], "no run there"),
        (["faster-rcnn"], "use `paperbench train faster-rcnn`"),
        (["sliding-windows", "proposals.sliding_windows.step=0"], "proposals.sliding_windows.step"),
        (["sliding-windows", "splits=[]"], "splits"),
    ],
)
def test_mistakes_are_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in paperbench("proposals", *words, "--smoke", code=2)
    assert list(tmp_path.iterdir()) == []
