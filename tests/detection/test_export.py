"""The deployed detector gives what `detect` gives, and exported it still does, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.config.validate import load_file
from paperbench.detection.export import export_model, match_detections
from paperbench.engine.export import FORMATS, compare
from paperbench.errors import ExportError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["roi-align", "roi-pool"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector after a few steps: enough to find something."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    result = CliRunner().invoke(
        app, ["train", "faster-rcnn", "--smoke", f"model.head.pool={request.param}", "--run-dir", str(folder)]
    )
    assert result.exit_code == 0, result.output
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_deployed_detector_is_the_detector(run: Path) -> None:
    _, config, _ = load_file(run / "config.yaml")
    exportable = export_model(config, run)

    with torch.inference_mode():
        found = compare(exportable, lambda inputs: exportable.module(*inputs))
    assert found == {"boxes": 0.0, "scores": 0.0, "labels": 0.0}
    assert len(exportable.inputs) == 4


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(run: Path, kind: str, tmp_path: Path) -> None:
    result = call(run, "--format", kind, "--output", tmp_path / "detector", "--json")
    assert result.exit_code == 0, result.output

    record = json.loads(result.stdout)
    assert record["check"]["max_abs_difference"] < 0.01
    assert record["check"]["by_output"]["scores"]["max_abs_difference"] < 1e-4
    assert json.loads(record["metadata"]["classes"])[0] == "disc"
    assert (record["task"], record["experiment"], record["run"]) == ("detect-train", "faster-rcnn", "run")
    written = {key: value for key, value in record.items() if key != "path"}
    assert json.loads((tmp_path / "detector.json").read_text()) == written


def test_a_detector_that_finds_nothing_cannot_be_compared(run: Path) -> None:
    _, config, _ = load_file(run / "config.yaml")
    config.model.head.score_threshold = 1.0

    with pytest.raises(ExportError, match="finds nothing in 4 test images"):
        export_model(config, run)


# --- matching ---------------------------------------------------------------------------------------------------------

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 31], [0, 0, 0, 0]])
SCORES = torch.tensor([0.9, 0.5, 0.5, 0.0])
LABELS = torch.tensor([1, 2, 2, 0])
INFINITE = {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}


def test_the_order_of_equal_scores_does_not_matter() -> None:
    order = torch.tensor([0, 2, 1, 3])

    assert match_detections((BOXES, SCORES, LABELS), (BOXES[order], SCORES[order], LABELS[order])) == {
        "boxes": 0.0,
        "scores": 0.0,
        "labels": 0.0,
    }


def test_differences_are_those_of_the_best_match() -> None:
    found = match_detections((BOXES, SCORES, LABELS), (BOXES + 0.5, SCORES - 0.25, LABELS))

    assert found["boxes"] == pytest.approx(0.5)
    assert found["scores"] == pytest.approx(0.25)


def test_another_label_or_number_is_no_match() -> None:
    assert match_detections((BOXES, SCORES, LABELS), (BOXES, SCORES, torch.tensor([1, 1, 2, 0]))) == INFINITE
    assert match_detections((BOXES, SCORES, LABELS), (BOXES, SCORES, torch.tensor([1, 2, 0, 0]))) == INFINITE
    none = torch.zeros(4, dtype=torch.int64)
    assert match_detections((BOXES, SCORES, none), (BOXES, SCORES, none)) == {"boxes": 0, "scores": 0, "labels": 0}


def test_labels_are_matched_before_places() -> None:
    swapped = torch.tensor([2, 1, 2, 0])

    assert match_detections((BOXES, SCORES, LABELS), (BOXES, SCORES, swapped))["boxes"] == 20


# --- what cannot be exported ------------------------------------------------------------------------------------------


def test_runs_and_formats_that_are_refused(run: Path, tmp_path: Path) -> None:
    assert "no such run" in call("nowhere", "--format", "onnx").stderr
    evaluation = tmp_path / "evaluation"
    CliRunner().invoke(app, ["eval", "faster-rcnn", f"checkpoint={run}", "--run-dir", str(evaluation)])
    result = call(evaluation, "--format", "onnx")
    assert result.exit_code == 2
    assert f"`paperbench export {run}`" in result.stderr
    assert call(run, "--format", "pickle").exit_code == 2
