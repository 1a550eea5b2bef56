from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paperbench.config.compose import compose
from paperbench.detection.export import export_model
from paperbench.detection.training import alternating
from paperbench.detection.training.alternating import AlternatingTraining, turns
from paperbench.engine import launch, metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.trainer import Trainer
from paperbench.errors import EXIT_DONE, EXIT_STOPPED, ConfigError

OVERRIDES = [
    "scale=smoke",
    "device=cpu",
    "threads=1",
    "precision=float32",
    "train.schedule=alternating",
    "data.max_train_images=4",
    "data.max_test_images=2",
    "train.checkpoint_every=2",
    "optim.lr=0.01",
]
STEPS = ("1-proposals", "2-detector", "3-proposals", "")
"""Folders of the steps' checkpoints; the last step's are the run's own."""


def resolved(*overrides: str) -> dict[str, Any]:
    return compose("faster-rcnn", [*OVERRIDES, *overrides]).resolved


def weights(run: Path, step: str = "") -> dict[str, Tensor]:
    loaded = CheckpointStore(run / "checkpoints" / step, sweep=False).load("last")
    assert loaded is not None
    return {name: value for name, value in loaded[0]["module"].items() if isinstance(value, Tensor)}


def same(a: dict[str, Tensor], b: dict[str, Tensor], *parts: str) -> bool:
    names = [name for name in a if name.startswith(tuple(f"{part}." for part in parts))]
    assert names
    return all(torch.equal(a[name], b[name]) for name in names)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alternating") / "run"
    assert launch.start(resolved(), run_dir=run, reporter=SilentReporter()).exit_code == EXIT_DONE
    return run


def test_each_step_trains_its_own_part_and_leaves_the_rest(whole: Path) -> None:
    first, second, third, last = (weights(whole, step) for step in STEPS)
    assert same(first, last, "head", "predictor") is False
    assert not same(first, second, "backbone")
    assert same(first, second, "rpn")
    assert same(second, third, "backbone", "head", "predictor")  # running means of the convolutions too
    assert not same(second, third, "rpn")
    assert same(third, last, "backbone", "rpn")
    assert not same(third, last, "head")
    assert not same(third, last, "predictor")


def test_the_record_counts_on_and_names_the_losses_of_each_step(whole: Path) -> None:
    records = [record for record in metriclog.read(whole / "metrics.jsonl") if "train/loss" in record]
    assert [record["step"] for record in records] == list(range(1, 17))
    trained = ["train/loss_box" if "train/loss_box" in record else "train/loss_rpn_box" for record in records]
    assert trained == (["train/loss_rpn_box"] * 4 + ["train/loss_box"] * 4) * 2


# In the first step, at its end, in the second, between two checkpoints of the third, in the last.
@pytest.mark.parametrize("after", [1, 4, 6, 11, 15])
def test_a_stopped_run_resumes_to_the_same_weights(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    made, step = [], Trainer._step

    def counted(trainer: Trainer, *arguments: Any) -> Any:
        made.append(trainer)
        if len(made) == after:
            trainer.run.stop.set("a test")
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_step", counted)
    run = tmp_path / "run"
    assert launch.start(resolved(), run_dir=run, reporter=SilentReporter()).exit_code == EXIT_STOPPED
    resumed = launch.resume(run, SilentReporter())
    assert resumed.exit_code == EXIT_DONE
    assert len(made) == 16
    for name in STEPS:
        expected, found = weights(whole, name), weights(run, name)
        assert all(torch.equal(value, found[part]) for part, value in expected.items())


def test_a_step_whose_last_checkpoint_is_damaged_is_finished_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    step, made = Trainer._step, []

    def counted(trainer: Trainer, *arguments: Any) -> Any:
        made.append(trainer)
        if len(made) == 7:
            trainer.run.stop.set("a test")
        return step(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_step", counted)
    assert launch.start(resolved(), run_dir=run, reporter=SilentReporter()).exit_code == EXIT_STOPPED
    damaged = run / "checkpoints" / "1-proposals" / "last.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert launch.resume(run, SilentReporter()).exit_code == EXIT_DONE
    expected, found = weights(whole), weights(run)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert len(made) == 7 + 2 + 9  # the last two steps of the damaged one again, then what was left


def test_steps_begin_with_initial_weights_where_the_paper_says_so() -> None:
    config = compose("faster-rcnn", OVERRIDES).config
    model = alternating_model(config)
    before = {name: value.clone() for name, value in model.model.state_dict().items() if isinstance(value, Tensor)}
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(1)
    _, second, third, fourth = turns(shared=True)
    model.prepare(second)
    now = {name: value.clone() for name, value in model.model.state_dict().items() if isinstance(value, Tensor)}
    assert same(before, now, "backbone")
    assert not same(before, now, "rpn")
    trained = {name.partition(".")[0] for name, value in model.model.named_parameters() if value.requires_grad}
    assert trained == {"backbone", "head", "predictor"}
    model.prepare(third)
    now = {name: value for name, value in model.model.state_dict().items() if isinstance(value, Tensor)}
    assert same(before, now, "rpn")
    model.prepare(fourth)
    trained = {name.partition(".")[0] for name, value in model.model.named_parameters() if value.requires_grad}
    assert trained == {"head", "predictor"}


def alternating_model(config: Any) -> AlternatingTraining:
    """An alternation that has not begun, without a run around it."""
    from types import SimpleNamespace

    from paperbench.detection import datasets
    from paperbench.detection.build import build
    from paperbench.detection.detectors.faster_rcnn import FasterRCNN

    train_set = datasets.load(config.data, "train")
    torch.manual_seed(0)
    model = build(config.model, classes=train_set.classes)
    assert isinstance(model, FasterRCNN)
    run: Any = SimpleNamespace(device=torch.device("cpu"))
    scorer: Any = None
    return AlternatingTraining(config, model, train_set, run, scorer)


def test_frozen_layers_stay_frozen_in_every_step() -> None:
    config = compose("faster-rcnn", [*OVERRIDES, "model.frozen_layers=2"]).config
    model = alternating_model(config)
    for turn in turns(shared=True):
        model.prepare(turn)
        assert not any(parameter.requires_grad for parameter in next(model.model.backbone.children()).parameters())


def test_unshared_nets_are_trained_one_after_the_other_and_evaluated_together(tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = launch.start(resolved("model.shared=false"), run_dir=run, reporter=SilentReporter())
    assert outcome.exit_code == EXIT_DONE
    first, last = weights(run, "1-proposals"), weights(run)
    assert same(first, last, "backbone.proposals", "rpn")
    assert not same(first, last, "backbone.regions")
    names = {name.removeprefix("backbone.proposals.") for name in last if name.startswith("backbone.proposals.")}
    assert names
    assert any(not torch.equal(last[f"backbone.proposals.{n}"], last[f"backbone.regions.{n}"]) for n in names)
    base = compose("faster-rcnn", [*OVERRIDES, "model.shared=false"]).resolved
    evaluated = launch.start(
        {**base, "task": "detect-eval", "checkpoint": str(run)}, run_dir=tmp_path / "eval", reporter=SilentReporter()
    )
    assert evaluated.results is not None
    assert outcome.results is not None
    assert evaluated.results["metrics"]["coco/AP"] == outcome.results["metrics"]["coco/AP"]
    with pytest.raises(ConfigError, match=r"with model.shared=false cannot be exported"):
        export_model(compose("faster-rcnn", [*OVERRIDES, "model.shared=false"]).config, run)


def test_samples_and_batches_of_a_step_can_be_given() -> None:
    config = compose(
        "faster-rcnn", [*OVERRIDES, "train.alternation.samples=7", "train.alternation.rpn_batch_size=1"]
    ).config
    assert alternating.sizes(config, turns(shared=True)) == ([1, 2, 1, 2], [7, 4, 7, 4])


def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from paperbench.detection.tasks import train as task

    config = compose("faster-rcnn", [*OVERRIDES, "train.alternation.rpn_batch_size=1", "nproc=2"]).config
    with pytest.raises(ConfigError, match=r"rpn_batch_size=1 cannot be shared by 2 processes"):
        task.plan(config)


def test_an_unshared_detector_can_be_trained_and_tested_on_selective_search(tmp_path: Path) -> None:
    overrides = ["model.shared=false", "train.alternation.detector_proposals=selective-search"]
    overrides += ["evaluation.ablations=true", f"output.root={tmp_path}"]
    outcome = launch.start(resolved(*overrides), run_dir=tmp_path / "run", reporter=SilentReporter())
    assert outcome.exit_code == EXIT_DONE
    assert outcome.results is not None
    assert outcome.results["metrics"]["ablation/given-2000/proposals"] > 0
    assert list((tmp_path / "proposals").rglob("*.npy"))


def test_given_proposals_need_nets_that_share_nothing() -> None:
    from paperbench.detection.tasks import train as task

    config = compose("faster-rcnn", [*OVERRIDES, "train.alternation.detector_proposals=selective-search"]).config
    with pytest.raises(ConfigError, match=r"model.shared=false"):
        task.plan(config)
