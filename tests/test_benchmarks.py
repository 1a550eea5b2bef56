"""Benchmarks that read runs made earlier: their rows say what those runs were made with, not what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import accuracy, common, distill_accuracy, stn_accuracy, stn_momentum, torchvision_detectors

from paperbench.config.compose import compose
from paperbench.data import shapes
from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import build
from paperbench.engine.reporter import Outcome
from paperbench.engine.rundir import STOPPED
from paperbench.engine.seeding import MODEL_INIT, seed_everything

ENVIRONMENT = {
    "started": "2001-02-03T04:05:06+00:00",
    "packages": {"torch": "2.11.0", "torchvision": "0.26.0"},
    "cpu": "Z80",
    "cores": 48,
    "threads": 3,
    "git": {"commit": "0123456789abcdef", "diff": ""},
}


def test_a_row_carries_the_commit_and_the_day_of_its_run(tmp_path: Path) -> None:
    results = {
        "metrics": {"test/error": 1.25, "model/parameters": 10, "train/samples_per_second": 99.6},
        "seconds": 7.4,
        "precision": "float32",
        "scale": "short",
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "env.json").write_text(json.dumps(ENVIRONMENT))

    row = stn_accuracy.row("rts/st-cnn/affine", 0, tmp_path)

    assert row["error_percent"] == "1.25"
    assert {key: row[key] for key in ("machine", "threads", "torch", "torchvision", "commit", "date")} == {
        "machine": "Z80, 48 cores",
        "threads": "3",
        "torch": "2.11.0",
        "torchvision": "0.26.0",
        "commit": "0123456",
        "date": "2001-02-03",
    }


def test_a_run_outside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text(json.dumps({**ENVIRONMENT, "git": None}))

    assert common.machine_of(tmp_path)["commit"] == "none"


def test_what_a_call_did_not_make_stays_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.write("some", [{"net": "a", "seed": 0, "error": "1"}, {"net": "b", "seed": 0, "error": "2"}])

    rows = [{"net": "b", "seed": 0, "settings": "", "error": "3"}]
    kept = common.earlier_rows("some", rows, ("net", "seed"))

    assert kept == [{"net": "a", "seed": "0", "settings": "", "error": "1"}]
    assert common.earlier_rows("none", rows, ("net", "seed")) == []


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("r/cnn", ("r", "cnn", "", "")),
        ("rts/st-cnn/tps", ("rts", "st-cnn", "tps", "")),
        ("r/st-cnn/tps/localisation_lr=1", ("r", "st-cnn", "tps", "localisation_lr=1")),
    ],
)
def test_a_cell_is_taken_apart(cell: str, wanted: tuple[str, ...]) -> None:
    assert stn_accuracy.parts(cell) == wanted


def test_lines_stand_by_seed_and_in_the_order_of_the_cells() -> None:
    lines = [
        {"distortion": d, "model": m, "transform": t, "settings": s, "seed": seed}
        for d, m, t, s, seed in (
            ("r", "st-cnn", "tps", "localisation_lr=1", "0"), ("r", "cnn", "", "", 1), ("rts", "fcn", "", "", "0"),
        )
    ]  # fmt: skip
    assert [line["model"] for line in sorted(lines, key=stn_accuracy.place)] == ["fcn", "st-cnn", "cnn"]


def test_a_table_is_the_mean_over_seeds() -> None:
    rows = [
        {"distortion": d, "model": m, "transform": t, "settings": s, "error_percent": error, "seconds": seconds}
        for d, m, t, s, error, seconds in (
            ("rts", "st-cnn", "tps", "localisation_lr=1", "1.5", "9"),
            ("r", "cnn", "", "", "2.00", "7"),
            ("r", "cnn", "", "", "2.50", "5"),
        )
    ]

    assert stn_accuracy.table(rows)[2:] == [
        "| cnn | 2.25 (2.00 to 2.50) |  |  |  |  | 5 to 7 |",
        "| st-cnn tps, `model.localisation_lr=1` |  | 1.50 (1.50 to 1.50) |  |  |  | 9 to 9 |",
    ]


def test_the_document_shows_the_table_of_the_csv() -> None:
    shown = (common.RESULTS.parents[1] / "docs/stn.md").read_text(encoding="utf-8").splitlines()
    assert set(stn_accuracy.table(common.read("stn-accuracy-cpu"))) <= set(shown)
    assert set(stn_momentum.table(common.read(stn_momentum.NAME))) <= set(shown)


def test_the_momentum_is_chosen_without_the_test_set() -> None:
    own = stn_momentum.overrides("e/st-fcn/0.9/optim.lr=0.2", 10, 3, "/data")
    config = compose("stn-mnist", own).config
    assert (config.distortion, config.model.name, config.optim.momentum, config.seed) == ("e", "st-fcn", 0.9, 3)
    assert config.validation.images == 10_000
    assert (config.train.samples, config.optim.lr) == (3_840_000, 0.2)
    usual = compose("stn-mnist", stn_momentum.overrides("e/st-fcn/0.0", 10, 0, "/data")).config
    shipped = compose("stn-mnist", ["scale=paper", "distortion=e", "model=st-fcn"]).config
    assert usual.optim.lr * usual.train.steps == pytest.approx(shipped.optim.lr * shipped.train.steps)


def test_momenta_stand_side_by_side() -> None:
    row = {"distortion": "r", "model": "fcn", "settings": "", "shorter": "10"}
    rows = [
        {**row, "momentum": "0.0", "validation_error_percent": "4.00"},
        {**row, "momentum": "0.9", "validation_error_percent": "2.00"},
        {**row, "momentum": "0.9", "validation_error_percent": "3.00"},
        {**row, "model": "st-fcn", "momentum": "0.9", "settings": "a=1", "validation_error_percent": "failed"},
    ]
    assert stn_momentum.table(rows)[2:] == [
        "| fcn, `r` | 1/10 | 4.00 (4.00) | 2.50 (2.00, 3.00) |",
        "| st-fcn, `r`, `a=1` | 1/10 |  | failed |",
    ]


def test_a_row_over_seeds_names_every_commit_its_runs_were_made_from(tmp_path: Path) -> None:
    runs = []
    for seed, commit in enumerate(("a" * 40, "b" * 40, "a" * 40)):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "env.json").write_text(
            json.dumps({**ENVIRONMENT, "git": {"commit": commit, "diff": ""}})
        )
        runs.append(distill_accuracy.SweepRun(labels={}, results={}, folder=tmp_path / str(seed)))

    said = distill_accuracy.machine_columns(runs, "cpu")

    assert said["commit"] == "aaaaaaa and bbbbbbb"
    assert said["machine"] == "Z80, 48 cores"


# --- accuracy side by side --------------------------------------------------------------------------------------------

SCENES = shapes.read(split="test", images=4, size=160)


def truth(*, grown: int = 0) -> list[torchvision_detectors.Found]:
    """The objects themselves as detections, their masks grown by some pixels to the right."""
    assert SCENES.masks is not None
    found = []
    for index, record in enumerate(SCENES.records):
        masks = SCENES.masks(index)
        for _ in range(grown):
            masks = masks | np.roll(masks, 1, axis=2)
        scores = np.full(len(record.labels), 0.9, np.float32)
        found.append(torchvision_detectors.Found(boxes=record.boxes, scores=scores, labels=record.labels, masks=masks))
    return found


def test_the_truth_has_full_marks_and_its_own_area() -> None:
    right = accuracy.score(SCENES, truth())
    assert right == pytest.approx(
        {"AP": 100, "AP50": 100, "AP75": 100, "mask/AP": 100, "mask/AP50": 100, "mask/AP75": 100, "mask/area": 1}
    )
    wide = accuracy.score(SCENES, truth(grown=6))
    assert wide["mask/area"] > 1.1
    assert wide["mask/AP"] < 90
    assert wide["AP"] == pytest.approx(100)


@pytest.mark.parametrize("net", accuracy.NETS)
def test_torchvisions_detectors_train_and_detect_on_our_settings(net: str) -> None:
    settings = ("scale=short", "data.train_images=4", "train.batch_size=2", "model.head.score_threshold=0")
    if net == "ssd":
        settings = (*settings[:-1], "model.score_threshold=0")
    config = compose(net, settings).config
    model = torchvision_detectors.train(config, SCENES, seed=0, samples=2)
    found = torchvision_detectors.detect(model, SCENES, batch=2)
    assert len(found) == len(SCENES)
    assert all(len(own.scores) == len(own.boxes) > 0 for own in found)
    assert all((own.masks is not None) == (net == "mask-rcnn") for own in found)
    # Both sides begin with the same backbone.
    seed_everything(3, MODEL_INIT)
    ours = build(config.model, classes=SCENES.classes).get_submodule("backbone").state_dict()
    theirs = torchvision_detectors.build(config, 5, seed=3).get_submodule("backbone.body").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def as_torchvision_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our Faster R-CNN's weights under torchvision's names."""
    places = {
        "backbone": "backbone.body",
        "rpn.conv": "rpn.head.conv.0.0",
        "rpn.objectness": "rpn.head.cls_logits",
        "rpn.deltas": "rpn.head.bbox_pred",
        "head": "roi_heads.box_head",
        "predictor.scores": "roi_heads.box_predictor.cls_score",
        "predictor.deltas": "roi_heads.box_predictor.bbox_pred",
    }
    return {
        place + name.removeprefix(own): value.clone()
        for own, place in places.items()
        for name, value in state.items()
        if name.startswith(f"{own}.")
    }


UNTIED = shapes.read(split="train", images=8, size=160)
"""Scenes without objects whose best anchors differ by rounding alone: torchvision compares those with ==, and drops some."""


def losses_of_both_sides(rules: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Both losses of proposals and of regions from the same weights and images, every anchor and region counted."""
    everything = [
        f"model.{part}.{key}"
        for part in ("rpn", "head")
        for key in ("batch_size_per_image=100000", "positive_fraction=1.0")
    ]
    settings = ("scale=short", "model.rpn.objectness=sigmoid", "model.head.batch_norm=false", *everything)
    config = compose("faster-rcnn", settings).config
    torch.manual_seed(0)
    ours = build(config.model, classes=UNTIED.classes).train()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith(("rpn", "predictor")):
                parameter.normal_(std=0.03)
    theirs = torchvision_detectors.build(config, len(UNTIED.classes), 0, rules).train()
    theirs.load_state_dict(as_torchvision_names(ours.state_dict()))
    store = datasets.store(config.data, UNTIED, torch.device("cpu"))
    make = BatchMaker(UNTIED, store, flip=0.0, seed=0, multiple=ours.multiple, training=True)
    indices = np.arange(len(UNTIED))
    own = ours(make(indices, np.zeros_like(indices)))
    examples = [torchvision_detectors._example(UNTIED, index, masks=False, mirror=False) for index in indices.tolist()]
    with torchvision_detectors.losses_of(config, rules):
        peer = theirs(*map(list, zip(*examples, strict=True)))
    names = {
        "loss_rpn_objectness": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_classification": "loss_classifier",
        "loss_box": "loss_box_reg",
    }
    return [own[name].item() for name in names], [peer[name].item() for name in names.values()]


def test_with_the_papers_rules_torchvisions_losses_are_ours() -> None:
    ours, theirs = losses_of_both_sides(torchvision_detectors.PAPER)
    assert theirs == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize(("rule", "changed"), [("anchors", 0), ("boundary", 0), ("smooth-l1", 3)])
def test_without_one_of_the_rules_a_loss_differs(rule: str, changed: int) -> None:
    ours, theirs = losses_of_both_sides(tuple(other for other in torchvision_detectors.PAPER if other != rule))
    assert theirs[changed] != pytest.approx(ours[changed], rel=1e-4)


def test_a_run_that_was_stopped_is_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> Outcome:
        return Outcome(tmp_path, None, STOPPED, 3, "stopped on SIGTERM at step 7 of 200")

    monkeypatch.setattr(accuracy.launch, "start", stopped)
    monkeypatch.setattr(accuracy.launch, "resume", stopped)
    for folder in (tmp_path / "new", tmp_path):
        (tmp_path / "config.yaml").touch()
        with pytest.raises(SystemExit, match="step 7 of 200"):
            accuracy._our_detector("ssd", ["scale=short"], folder)


def test_every_image_is_seen_once_an_epoch_and_half_are_mirrored() -> None:
    order = list(torchvision_detectors._order(50, 175, seed=0))
    indices = [index for index, _ in order]
    assert len(order) == 175
    assert sorted(indices[:50]) == sorted(indices[50:100]) == list(range(50))
    assert indices[:50] != indices[50:100]
    assert 60 < sum(mirror for _, mirror in order) < 115


def test_means_that_differ_less_than_seeds_do_are_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    values = {"ours": (80.0, 82.0), "torchvision": (81.0, 82.0)}
    calls = []

    def cell(side: str, seed: int) -> accuracy.Cell:
        def measured() -> dict[str, float]:
            calls.append((side, seed))
            return {"AP50": values[side][seed], "AP": values[side][seed] / (2 if side == "ours" else 1)}

        return accuracy.Cell(
            subject="detection", workload="w", net="n", side=side, seed=seed, samples=8, measure=measured
        )

    cells = [cell(side, seed) for side in values for seed in (0, 1)]
    accuracy.measure(cells[:3], "accuracy-test", "cpu", again=False)
    accuracy.measure(cells, "accuracy-test", "cpu", again=False)
    assert calls == [("ours", 0), ("ours", 1), ("torchvision", 0), ("torchvision", 1)]
    lines = accuracy.table(common.read("accuracy-test"))
    assert "| AP50 | 81 ± 1.4 | torchvision 81.5 ± 0.71 | -0.5 | level |" in lines[2]
    assert "| apart |" in lines[3]
