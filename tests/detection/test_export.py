"""The deployed detector gives what `detect` gives, and exported it still does, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.ops import nms
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.config.validate import load_file
from paperbench.detection.deployed import DeployedTwoStage
from paperbench.detection.export import export_model
from paperbench.detection.outcomes import Choice, Outcomes, differences, highest, survivors
from paperbench.engine.export import FORMATS, compare
from paperbench.engine.exportable import Tensors
from paperbench.errors import ConfigError, ExportError

pytestmark = pytest.mark.slow


DETECTORS = {
    "roi-align": ("faster-rcnn", "model.head.pool=roi-align"),
    "roi-pool": ("faster-rcnn", "model.head.pool=roi-pool"),
    # Two of its detections have scores that differ by a rounding error: onnxruntime keeps the other one.
    "tie": ("faster-rcnn", "model.head.pool=roi-align", "seed=1"),
    "ssd": ("ssd",),
    "yolo": ("yolo",),
}


@pytest.fixture(scope="module", params=DETECTORS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector after a few steps: enough to find something."""
    return trained(request.param, tmp_path_factory.mktemp("exported") / "run")


@pytest.fixture(scope="module")
def faster_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faster R-CNN with its defaults after a few steps."""
    return trained("roi-align", tmp_path_factory.mktemp("exported") / "run")


def trained(name: str, folder: Path) -> Path:
    """A run in `folder`."""
    experiment, *overrides = DETECTORS[name]
    result = CliRunner().invoke(app, ["train", experiment, "--smoke", *overrides, "--run-dir", str(folder)])
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
    assert (record["task"], record["run"]) == ("detect-train", "run")
    written = {key: value for key, value in record.items() if key != "path"}
    assert json.loads((tmp_path / "detector.json").read_text()) == written


def test_a_detector_that_finds_nothing_cannot_be_compared(faster_rcnn: Path) -> None:
    _, config, _ = load_file(faster_rcnn / "config.yaml")
    config.model.head.score_threshold = 1.0

    with pytest.raises(ExportError, match="finds nothing in 4 test images"):
        export_model(config, faster_rcnn)


# --- planted faults ---------------------------------------------------------------------------------------------------


def moved(answer: Tensors) -> Tensors:
    """One box is half a pixel off."""
    boxes, scores, labels = answer
    return boxes + 0.5 * (torch.arange(len(boxes)) == 0)[:, None], scores, labels


def rescored(answer: Tensors) -> Tensors:
    """Scores are a thousandth too low."""
    boxes, scores, labels = answer
    return boxes, scores - 1e-3 * (labels > 0), labels


def renamed(answer: Tensors) -> Tensors:
    """Classes are counted from another one."""
    boxes, scores, labels = answer
    return boxes, scores, torch.where(labels > 0, labels % labels.max() + 1, 0)


def shortened(answer: Tensors) -> Tensors:
    """Half of the detections are lost."""
    boxes, scores, labels = answer
    return boxes, scores, torch.where(torch.arange(len(labels)) < (labels > 0).sum() // 2, labels, 0)


def doubled(answer: Tensors) -> Tensors:
    """Each detection is there twice."""
    return tuple(torch.cat([part, part]) for part in answer)  # pyright: ignore[reportReturnType]


def unsorted(answer: Tensors) -> Tensors:
    """The worst comes first; scores that are equal up to rounding stay so."""
    boxes, scores, labels = answer
    order = torch.arange(int((labels > 0).sum())).flip(0)
    return boxes[order], scores[order] - torch.arange(len(order)).flip(0) * 2e-4, labels[order]


@pytest.mark.parametrize("fault", [moved, rescored, renamed, shortened, doubled, unsorted])
def test_a_fault_in_the_answer_is_found(run: Path, fault: Callable[[Tensors], Tensors]) -> None:
    _, config, _ = load_file(run / "config.yaml")
    exportable = export_model(config, run)

    found = compare(exportable, lambda inputs: fault(exportable.module(*inputs)))
    assert any(found[output.name] > output.tolerance for output in exportable.outputs), found


@pytest.mark.parametrize(
    ("key", "value"), [("nms_iou", 0.9), ("nms_iou", 0.1), ("score_threshold", 0.166), ("detections_per_image", 5)]
)
def test_another_setting_of_the_suppression_is_found(faster_rcnn: Path, key: str, value: float) -> None:
    _, config, _ = load_file(faster_rcnn / "config.yaml")
    exportable = export_model(config, faster_rcnn)
    assert isinstance(exportable.module, DeployedTwoStage)
    exportable.module.config = replace(exportable.module.config, **{key: value})

    found = compare(exportable, lambda inputs: exportable.module(*inputs))
    assert any(found[output.name] > output.tolerance for output in exportable.outputs), found


@pytest.mark.parametrize(
    "weight", ["backbone", "rpn.conv", "rpn.deltas", "rpn.objectness", "predictor.scores", "predictor.deltas"]
)
def test_weights_in_another_order_are_found(faster_rcnn: Path, weight: str) -> None:
    _, config, _ = load_file(faster_rcnn / "config.yaml")
    exportable = export_model(config, faster_rcnn)
    wrong = deepcopy(exportable.module)
    with torch.no_grad():
        for parameter in wrong.get_submodule(f"model.{weight}").parameters():
            parameter.copy_(parameter.flip(0))

    found = compare(exportable, lambda inputs: wrong(*inputs))
    assert any(found[output.name] > output.tolerance for output in exportable.outputs), found


# --- differences ------------------------------------------------------------------------------------------------------

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 31], [0, 0, 0, 0]])
SCORES = torch.tensor([0.9, 0.5, 0.5, 0.0])
LABELS = torch.tensor([1, 2, 2, 0])
OUTCOMES = Outcomes(BOXES[:3], SCORES[:3], LABELS[:3], torch.tensor([True, True, False]))
INFINITE = {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}
SAME = {"boxes": 0.0, "scores": 0.0, "labels": 0.0}


def test_the_order_of_equal_scores_does_not_matter() -> None:
    order = torch.tensor([0, 2, 1, 3])

    assert differences(OUTCOMES, (BOXES[order], SCORES[order], LABELS[order])) == SAME


def test_differences_are_those_of_the_best_match() -> None:
    found = differences(OUTCOMES, (BOXES + 0.5, SCORES - 0.25, LABELS))

    assert found["boxes"] == pytest.approx(0.5)
    assert found["scores"] == pytest.approx(0.25)


def test_what_is_certain_must_be_there_and_what_is_only_possible_may() -> None:
    def found(*rows: int) -> dict[str, float]:
        place = torch.tensor(rows)
        return differences(OUTCOMES, (BOXES[place], SCORES[place], LABELS[place]))

    assert found(0, 1) == SAME
    assert found(0, 1, 2) == SAME
    assert found(1, 2) == INFINITE
    assert found(0, 1, 1, 2) == INFINITE
    # The possible one alone stands for the certain one, a pixel away.
    assert found(0, 2)["boxes"] == 1


def test_another_label_is_no_match_and_nan_is_no_agreement() -> None:
    assert differences(OUTCOMES, (BOXES, SCORES, torch.tensor([1, 1, 2, 0]))) == INFINITE
    assert differences(OUTCOMES, (BOXES, SCORES, torch.tensor([1, 2, 3, 0]))) == INFINITE
    assert differences(OUTCOMES, (BOXES, SCORES, torch.zeros(4, dtype=torch.int64))) == INFINITE
    assert not differences(OUTCOMES, (BOXES * float("nan"), SCORES, LABELS))["boxes"] <= 0.01
    assert differences(OUTCOMES, (BOXES, SCORES.flip(0), LABELS.flip(0)))["scores"] > 0.1


# --- what rounding can change -----------------------------------------------------------------------------------------


def test_suppression_where_two_scores_are_nearly_equal() -> None:
    """Either of the first two survives; the third overlaps only the second, and goes with it. The fourth stands alone."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18], [50, 50, 60, 60]])
    scores = torch.tensor([0.5 + 1e-7, 0.5, 0.4, 0.3])
    there = torch.ones(4, dtype=torch.bool)

    def kept(margin: float) -> tuple[list[bool], list[bool]]:
        choice = survivors(boxes, scores, Choice(there, there), iou=0.3, margin=margin, box_margin=0.0)
        return choice.certain.tolist(), choice.possible.tolist()

    assert kept(0.0) == ([True, False, True, True], [True, False, True, True])
    assert kept(1e-6) == ([False, False, False, True], [True, True, True, True])


def test_the_highest_of_scores_that_are_nearly_equal() -> None:
    scores = torch.tensor([0.9, 0.5, 0.5 - 1e-7, 0.1])
    there = torch.ones(4, dtype=torch.bool)

    choice = highest(scores, Choice(there, there), count=2, margin=1e-6)
    assert choice.certain.tolist() == [True, False, False, False]
    assert choice.possible.tolist() == [True, True, True, False]
    assert highest(scores, Choice(there, there), count=2, margin=0.0).possible.tolist() == [True, True, False, False]


def test_every_rounding_leads_to_an_outcome() -> None:
    """Suppression of scores with noise within the margin keeps all that is certain and nothing that is not possible."""
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for _ in range(50):
        corners = torch.rand(60, 2, generator=generator) * 40
        boxes = torch.cat([corners, corners + 10 + 10 * torch.rand(60, 2, generator=generator)], 1)
        scores = (torch.rand(60, generator=generator) * 20).round() / 20
        there = torch.ones(60, dtype=torch.bool)
        kept = survivors(boxes, scores, Choice(there, there), iou=0.5, margin=2e-3, box_margin=0.0)
        chosen = highest(scores, kept, count=10, margin=2e-3)
        assert not (chosen.certain & ~chosen.possible).any()
        for _ in range(5):
            noisy = scores + 1e-3 * (2 * torch.rand(60, generator=generator) - 1)
            found = torch.zeros(60, dtype=torch.bool)
            found[nms(boxes, noisy, 0.5)[:10]] = True
            assert not (found & ~chosen.possible).any()
            assert not (chosen.certain & ~found).any()
            seen += int((found & ~chosen.certain).sum())
    assert seen > 0


# --- what cannot be exported ------------------------------------------------------------------------------------------


def test_runs_and_formats_that_are_refused(faster_rcnn: Path, tmp_path: Path) -> None:
    assert "no such run" in call("nowhere", "--format", "onnx").stderr
    evaluation = tmp_path / "evaluation"
    CliRunner().invoke(app, ["eval", "faster-rcnn", f"checkpoint={faster_rcnn}", "--run-dir", str(evaluation)])
    result = call(evaluation, "--format", "onnx")
    assert result.exit_code == 2
    assert f"`paperbench export {faster_rcnn}`" in result.stderr
    assert call(faster_rcnn, "--format", "pickle").exit_code == 2


@pytest.mark.parametrize("overrides", [("fpn",), ("rfcn",), ("mask-rcnn",), ("faster-rcnn", "model.stages=1")])
def test_other_detectors_are_refused_before_their_weights_are_read(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    experiment, *rest = overrides
    shown = CliRunner().invoke(app, ["show", experiment, *rest])
    assert shown.exit_code == 0
    (tmp_path / "config.yaml").write_text(shown.stdout)

    _, config, _ = load_file(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"cannot be exported; faster-rcnn .* ssd and yolo can"):
        export_model(config, tmp_path)


def test_a_task_without_an_export_says_what_uses_its_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CliRunner().invoke(app, ["show", "fast-rcnn"]).stdout)
    result = call(tmp_path, "--format", "onnx")
    assert result.exit_code == 2
    assert "runs of task region-train cannot be exported" in result.stderr
    assert "`paperbench predict RUN IMAGE` uses the run itself" in result.stderr
