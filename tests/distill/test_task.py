"""Whole runs: their metrics, their files, and their resumption after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.config.compose import compose
from paperbench.data import digits
from paperbench.distill import supervised
from paperbench.distill.task import plan
from paperbench.distill.training import Distillation
from paperbench.engine import store
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.lock import FileLock
from paperbench.errors import CheckpointError, ConfigError, DataError
from paperbench.records.metrics import metrics_of
from tests.distill.runs import (
    TINY,
    CrashError,
    CrashingReporter,
    assert_same_weights,
    resolved,
    resume,
    start_and_be_killed,
    train,
    weights,
)
from tests.engine.processes import join, spawn

STAGES = ("teacher", "baseline", "distilled")


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these runs; the tests named after what they look at keep them."""
    if "report" not in request.node.name:
        monkeypatch.setattr(Distillation, "_draw", lambda *_: None)


def test_a_run_reports_the_three_nets(tmp_path: Path) -> None:
    metrics = train(resolved(tmp_path), tmp_path / "run")
    for stage in STAGES:
        assert 0 <= metrics[f"{stage}/test/errors"] <= 60
        assert metrics[f"{stage}/test/error"] == pytest.approx(100 * metrics[f"{stage}/test/errors"] / 60)
        assert 0 <= metrics[f"{stage}/train/accuracy"] <= 100
    assert {"distilled/train/loss_soft", "distilled/train/loss_hard"} <= set(metrics)
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"course.png", "targets.png"}


def test_students_start_alike(tmp_path: Path) -> None:
    """With no step taken apart, what differs between the students is their targets alone."""
    config = resolved(tmp_path, "train.samples=20", "optim.lr=1e-12", "teaching.samples=20")
    train(config, tmp_path / "run")
    for name, value in weights(tmp_path / "run", "baseline").items():
        torch.testing.assert_close(value, weights(tmp_path / "run", "distilled")[name], rtol=0, atol=1e-9)


# --- nets that runs share ---------------------------------------------------------------------------------------------


def test_another_temperature_trains_neither_teacher_nor_baseline_again(tmp_path: Path) -> None:
    first = train(resolved(tmp_path, "temperature=2"), tmp_path / "a")
    watching = CrashingReporter()
    second = train(resolved(tmp_path, "temperature=8"), tmp_path / "b", watching)
    assert any("teacher: found trained in" in text for text in watching.messages)
    assert any("baseline: found trained in" in text for text in watching.messages)
    for stage in ("teacher", "baseline"):
        assert first[f"{stage}/test/nll"] == second[f"{stage}/test/nll"]
    assert first["distilled/test/nll"] != second["distilled/test/nll"]
    assert_same_weights(tmp_path / "a", tmp_path / "b", "teacher", "baseline")


@pytest.mark.parametrize(
    "change",
    ["seed=1", "teaching.jitter=1", "teaching.net.width=13", "teaching.optim.lr=0.002", "data.max_train_images=100"],
)
def test_a_teacher_of_another_recipe_is_another_teacher(tmp_path: Path, change: str) -> None:
    train(resolved(tmp_path, "baseline.train=false"), tmp_path / "a")
    train(resolved(tmp_path, "baseline.train=false", change), tmp_path / "b")
    nets = [path for path in (tmp_path / supervised.SHARED).iterdir() if (path / "recipe.json").is_file()]
    assert len(nets) == 2


def test_a_fixed_teacher_serves_students_of_all_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        train(resolved(tmp_path, f"seed={seed}", "teaching.seed=5", "baseline.train=false"), tmp_path / str(seed))
    assert_same_weights(tmp_path / "0", tmp_path / "1", "teacher")


def test_a_finished_run_does_not_need_the_shared_folder(tmp_path: Path) -> None:
    config = resolved(tmp_path)
    with pytest.raises(CrashError):
        train(config, tmp_path / "run", CrashingReporter("distilled", 2))
    for path in (tmp_path / supervised.SHARED).iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    watching = CrashingReporter()
    resume(tmp_path / "run", watching)
    assert set(watching.phases) == {"distilled"}


def test_waits_for_the_process_that_trains_the_same_net_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SECONDS_BETWEEN_TRIES", 0.01)
    train(resolved(tmp_path, "baseline.train=false"), tmp_path / "a")
    (net,) = [path for path in (tmp_path / supervised.SHARED).iterdir() if (path / "recipe.json").is_file()]
    other = FileLock(net / "lock")
    assert other.acquire()

    class Releasing(CrashingReporter):
        def message(self, text: str) -> None:
            super().message(text)
            if "waiting for" in text:
                other.release()

    watching = Releasing()
    train(resolved(tmp_path, "baseline.train=false", "temperature=3"), tmp_path / "b", watching)
    assert any("teacher: waiting for pid" in text for text in watching.messages)


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    root = tmp_path_factory.mktemp("undisturbed")
    return root / "run", train(resolved(root, "teaching.net.dropout=0.5"), root / "run")


def test_every_metric_of_a_run_is_declared(undisturbed: tuple[Path, dict[str, float]]) -> None:
    declared = metrics_of("distill")
    assert [name for name in undisturbed[1] if name not in declared] == []


@pytest.mark.parametrize(("stage", "step"), [("teacher", 2), ("teacher", 8), ("baseline", 5), ("distilled", 7)])
def test_a_run_resumes_to_the_same_weights_after_a_stop_in_any_stage(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, float]], stage: str, step: int
) -> None:
    with pytest.raises(CrashError):
        train(resolved(tmp_path, "teaching.net.dropout=0.5"), tmp_path / "run", CrashingReporter(stage, step))
    watching = CrashingReporter()
    metrics = resume(tmp_path / "run", watching)
    assert metrics == undisturbed[1]
    assert_same_weights(tmp_path / "run", undisturbed[0], *STAGES)
    # Stages that were done are not done again.
    finished = STAGES[: STAGES.index(stage)]
    assert not set(finished) & set(watching.phases)


@pytest.mark.slow
def test_a_killed_process_leaves_a_run_that_resumes(tmp_path: Path, undisturbed: tuple[Path, dict[str, float]]) -> None:
    config = resolved(tmp_path, "teaching.net.dropout=0.5")
    assert join(spawn(start_and_be_killed, config, tmp_path / "run", "baseline", 4)) == -9
    assert resume(tmp_path / "run") == undisturbed[1]
    assert_same_weights(tmp_path / "run", undisturbed[0], *STAGES)


def test_another_run_goes_on_with_the_teacher_of_a_killed_one(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, float]]
) -> None:
    config = resolved(tmp_path, "teaching.net.dropout=0.5")
    with pytest.raises(CrashError):
        train(config, tmp_path / "first", CrashingReporter("teacher", 5))
    watching = CrashingReporter()
    assert train(config, tmp_path / "second", watching) == undisturbed[1]
    assert "teacher: resumed at step 4 of 8" in watching.messages


# --- given teachers ---------------------------------------------------------------------------------------------------


def test_a_run_as_teacher_gives_what_training_it_would(tmp_path: Path) -> None:
    trained = train(resolved(tmp_path), tmp_path / "a")
    given = train(resolved(tmp_path / "elsewhere", f"teacher={tmp_path / 'a'}"), tmp_path / "b")
    assert given["teacher/test/nll"] == trained["teacher/test/nll"]
    assert given["distilled/test/nll"] == trained["distilled/test/nll"]
    assert_same_weights(tmp_path / "a", tmp_path / "b", "teacher", "distilled")


def test_stored_logits_are_computed_once_and_teach_like_their_net(tmp_path: Path) -> None:
    trained = train(resolved(tmp_path), tmp_path / "a")
    (stored,) = (tmp_path / supervised.SHARED).glob("logits-*")
    told = train(resolved(tmp_path / "elsewhere", f"teacher={stored}"), tmp_path / "b")
    assert told["distilled/test/nll"] == trained["distilled/test/nll"]
    assert told["teacher/test/errors"] == trained["teacher/test/errors"]


def test_damaged_logits_are_computed_again(tmp_path: Path) -> None:
    trained = train(resolved(tmp_path), tmp_path / "a")
    (stored,) = (tmp_path / supervised.SHARED).glob("logits-*")
    content = bytearray((stored / "last.pt").read_bytes())
    content[len(content) // 2] ^= 255
    (stored / "last.pt").write_bytes(content)
    again = train(resolved(tmp_path), tmp_path / "b")
    assert again == trained
    state = CheckpointStore(stored, sweep=False).load()
    assert state is not None


def test_logits_of_training_images_alone_leave_the_teacher_without_test_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).normal(size=(120, 10)))
    metrics = train(resolved(tmp_path, f"teacher={tmp_path / 'logits.npy'}"), tmp_path / "run")
    assert "teacher/test/errors" not in metrics
    assert "teacher/train/accuracy" in metrics
    assert "distilled/test/errors" in metrics
    (tmp_path / "logits.npy").unlink()  # the run keeps a copy


def test_a_poor_teacher_is_remarked_upon(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(784, 10).state_dict(), tmp_path / "net.pth")
    watching = CrashingReporter()
    train(resolved(tmp_path, f"teacher={tmp_path / 'net.pth'}"), tmp_path / "run", watching)
    assert any("set teacher_mean and teacher_std" in text for text in watching.messages)


def test_an_ensemble_is_trained_stored_and_reused(tmp_path: Path) -> None:
    trained = train(resolved(tmp_path, "teaching.members=2", "baseline.train=false"), tmp_path / "a")
    assert {"teacher/test/errors", "teacher-0/test/errors", "teacher-1/test/errors"} <= set(trained)
    first, second = weights(tmp_path / "a", "teacher-0"), weights(tmp_path / "a", "teacher-1")
    assert not torch.equal(first["head.weight"], second["head.weight"])
    given = train(resolved(tmp_path / "elsewhere", f"teacher={tmp_path / 'a'}", "baseline.train=false"), tmp_path / "b")
    assert given["distilled/test/nll"] == trained["distilled/test/nll"]
    by_logits = train(
        resolved(tmp_path, "teaching.members=2", "teaching.average=logits", "baseline.train=false"), tmp_path / "c"
    )
    assert by_logits["teacher-0/test/errors"] == trained["teacher-0/test/errors"]
    assert by_logits["teacher/test/nll"] != trained["teacher/test/nll"]


# --- transfer sets ----------------------------------------------------------------------------------------------------


def test_omitted_digits_are_reported_with_both_corrections(tmp_path: Path) -> None:
    metrics = train(
        resolved(tmp_path, "transfer.omit=3", "validation.fraction=0.2", "train.samples=800"), tmp_path / "run"
    )
    assert metrics["corrected/test/errors"] <= metrics["distilled/test/errors"]
    assert metrics["corrected/test/errors"] <= metrics["validated/test/errors"]
    threes = int((digits.load("test").first(60).labels == 3).sum())
    assert metrics["distilled/omitted/right"] == pytest.approx(100 * (1 - metrics["distilled/omitted/errors"] / threes))
    assert (tmp_path / "run" / "figures" / "bias.png").is_file()
    removed = 100 * (1 - metrics["corrected/test/errors"] / metrics["distilled/test/errors"])
    assert metrics["corrected/removed"] == pytest.approx(removed)
    declared = metrics_of("distill")
    assert [name for name in metrics if name not in declared] == []


def test_only_two_digits_lower_their_bias(tmp_path: Path) -> None:
    config = resolved(
        tmp_path, "transfer.only=[7,8]", "teaching.samples=8000", "train.samples=2000", "optim.lr=0.01",
        "teaching.optim.lr=0.01", "data.max_train_images=400", "hard_weight=0", "baseline.train=false",
        "teaching.net.width=40", "model.width=40", "data.max_test_images=200", "teaching.net.dropout=0",
        "teaching.net.input_dropout=0",
    )  # fmt: skip
    metrics = train(config, tmp_path / "run")
    assert metrics["corrected/bias"] < 0
    assert metrics["corrected/test/errors"] < metrics["distilled/test/errors"]


def test_early_stopping_keeps_the_weights_that_were_best_on_validation_images(tmp_path: Path) -> None:
    overrides = ("validation.fraction=0.3", "baseline.images=transfer", "train.evaluate_every=2", "optim.lr=0.05")
    stopped = train(resolved(tmp_path, *overrides, "baseline.early_stopping=true"), tmp_path / "a")
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    validated = [json.loads(line).get("baseline/validation/errors") for line in lines]
    assert stopped["baseline/validation/errors"] == min(value for value in validated if value is not None)


@pytest.mark.parametrize("targets", ["soft", "logits"])
def test_targets_teach(tmp_path: Path, targets: str) -> None:
    metrics = train(
        resolved(tmp_path, f"targets={targets}", "hard_weight=0", "train.samples=4000", "optim.lr=0.01",
                 "teaching.samples=4000", "teaching.optim.lr=0.01", "model.width=32", "teaching.net.width=32",
                 "baseline.train=false"),
        tmp_path / "run",
    )  # fmt: skip
    assert metrics["distilled/train/accuracy"] > 60


# --- what cannot be done ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["nproc=2"], "nproc=2"),
        (["soft_weight=0", "hard_weight=0"], "learn nothing"),
        (["baseline.early_stopping=true"], "needs validation images"),
        (["baseline.early_stopping=true", "validation.fraction=0.1", "train.evaluate_every=0"], "needs evaluations"),
        (["transfer.omit=x"], "no class x"),
        (["transfer.omit=3", "transfer.only=4"], "give one of them"),
        (["teacher=/nowhere/at/all"], "there is no such run or file"),
        (["model=convnet", "model.layers=9"], "model.layers=9"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(tmp_path: Path, overrides: list[str], message: str) -> None:
    chosen = [text for text in TINY if text.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    with pytest.raises(ConfigError, match=message):
        plan(compose("distill", [*chosen, *overrides]).config)
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_other_data_is_found_before_anything_is_written(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.zeros((7, 10), np.float32))
    (tmp_path / "net.pth").write_bytes(b"not a net")
    for name, message in (("logits.npy", "logits is 7 x 10; 120 training images"), ("net.pth", "no plain tensors")):
        config = compose("distill", [*TINY, f"teacher={tmp_path / name}"]).config
        with pytest.raises((DataError, CheckpointError), match=f"{name}: .*{message}"):
            plan(config)


def test_missing_data_are_found_before_anything_is_written(tmp_path: Path) -> None:
    for data in ("mnist", "emnist", "cifar100"):
        with pytest.raises(DataError, match=f"no data set '{data}' here"):
            plan(compose("distill", [f"data={data}", f"data.root={tmp_path}"]).config)


def test_the_plan_says_what_would_be_done() -> None:
    facts = plan(compose("distill", ["temperature=4", "transfer.omit=3"]).config)
    assert "student without 3" in facts["data"]
    assert "2x1200, dropout 0.5" in facts["teacher"]
    assert facts["targets"] == "1 x soft at T = 4, 0.1 x hard"
