"""The training loop in one process; kills, stops and several ranks are in tests/faults."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.clock import SaveTimer
from paperbench.engine.finite import DeferredCheck
from paperbench.engine.metriclog import JsonLines, MetricLog, read
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.seeding import STEP, generator
from paperbench.engine.signals import ENV_LAST_STEP, StopFlag
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import CheckpointError, Stopped, TrainingError

POINTS = torch.linspace(-1, 1, 20).reshape(10, 2)


class Progress(SilentReporter):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int, dict[str, float]]] = []

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        assert phase == "train"
        self.seen.append((done, total, dict(values)))


class Line(nn.Module):
    """A straight line with dropout, whose losses can be spoilt at a step."""

    def __init__(self, *, dropout: float = 0.0, nan_at: int = -1, nan_gradient_at: int = -1) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros(()))
        with torch.no_grad():
            self.linear.weight.fill_(0.5)
            self.linear.bias.zero_()
        self.nan_at, self.nan_gradient_at = nan_at, nan_gradient_at

    def forward(self, batch: tuple[int, Tensor], stream: torch.Generator) -> dict[str, Tensor]:
        step, x = batch
        assert self.training
        self.calls += 1
        out = self.linear(self.dropout(x) + 0.01 * torch.randn(x.shape, generator=stream))
        fit = (out - 3).square().mean()
        size = 0.1 * out.abs().mean()
        if step == self.nan_at:
            size = size * float("nan")
        if step == self.nan_gradient_at:
            size = size + torch.sqrt(out * 0.0).sum()
        return {"fit": fit, "size": size}


def fetch(key: BatchKey) -> tuple[int, Tensor]:
    return key.step, POINTS[torch.from_numpy(key.indices)]


def make_run(path: Path, *, config_hash: str = "abc", reporter: Any = None, stop: StopFlag | None = None) -> Run:
    directory = RunDirectory(path)
    path.mkdir(exist_ok=True)
    return Run(
        directory=directory,
        device=torch.device("cpu"),
        precision="float32",
        ranks=Ranks(),
        reporter=reporter or SilentReporter(),
        stop=stop or StopFlag(),
        log=MetricLog([JsonLines(directory.metrics_file)]),
        checkpoints=CheckpointStore(directory.checkpoints),
        seed=1,
        config_hash=config_hash,
    )


def make_trainer(run: Run, module: nn.Module | None = None, **changes: Any) -> Trainer:
    module = module or Line()
    settings: dict[str, Any] = {
        "optimizer": build_optimizer(OptimConfig(lr=0.05, momentum=0.9), [{"params": module.parameters()}]),
        "lr_factor": lambda step: 1.0 / (1 + step),
        "order": EpochOrder(len(POINTS), 4, seed=1),
        "fetch": fetch,
        "steps": 6,
        "log_every": 1,
        "checkpoint_every": 100,
    }
    return Trainer(run=run, module=module, **{**settings, **changes})


def train(
    path: Path, module: nn.Module | None = None, **changes: Any
) -> tuple[dict[str, float], nn.Module, list[dict[str, Any]]]:
    run = make_run(path)
    trainer = make_trainer(run, module, **changes)
    try:
        values = trainer.fit()
    finally:
        run.log.close()
    return values, trainer.module, read(path / "metrics.jsonl")


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# --- from a configuration ---------------------------------------------------------------------------------------------


def test_a_trainer_follows_its_configuration(tmp_path: Path) -> None:
    optim = OptimConfig(lr=0.05, schedule="cosine", warmup_steps=2)
    loop = LoopConfig(
        samples=22,
        batch_size=4,
        clip_norm=0.5,
        log_every=3,
        checkpoint_every=5,
        evaluate_every=2,
        prefetch=1,
        checkpoint_seconds=7,
    )
    run, module = make_run(tmp_path), Line()
    built = build_trainer(
        run, module, optim=optim, loop=loop, order=len(POINTS), fetch=fetch, evaluate=lambda: {"AP": 1.0}, watch="AP"
    )
    run.log.close()
    assert (built.steps, built.clip_norm, built.log_every) == (6, 0.5, 3)
    assert built.save_timer.seconds == 7
    assert (built.checkpoint_every, built.evaluate_every, built.prefetch, built.watch) == (5, 2, 1, "AP")
    expected = EpochOrder(len(POINTS), 4, seed=run.seed)
    assert all((built.order.batch(step).indices == expected.batch(step).indices).all() for step in range(6))
    assert [built.lr_factor(step) for step in range(6)] == [lr_factor(optim, 6)(step) for step in range(6)]
    assert [id(p) for group in built.optimizer.param_groups for p in group["params"]] == [
        id(p) for p in module.parameters()
    ]


def test_order_and_groups_can_be_ones_own(tmp_path: Path) -> None:
    run, module, order = make_run(tmp_path), Line(), EpochOrder(3, 2, seed=9)
    groups = [{"params": list(module.parameters())[:1], "lr_scale": 0.1}]
    built = build_trainer(
        run, module, optim=OptimConfig(lr=0.5), loop=LoopConfig(batch_size=2), order=order, fetch=fetch, groups=groups
    )
    run.log.close()
    assert built.order is order
    assert [(group["base_lr"], len(group["params"])) for group in built.optimizer.param_groups] == [(0.05, 1)]


# --- one step after the other -----------------------------------------------------------------------------------------


def test_the_loop_is_gradient_descent_on_the_sum_of_the_losses(tmp_path: Path) -> None:
    """The loop against a few lines of plain torch."""
    values, module, records = train(tmp_path, clip_norm=0.5)
    other = Line()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    order = EpochOrder(len(POINTS), 4, seed=1)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        losses = other(fetch(order.batch(step)), generator("cpu", 1, STEP, step, 0))
        optimizer.zero_grad()
        (losses["fit"] + losses["size"]).backward()
        norm = nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        optimizer.step()
        fit, size = (float(losses[name].detach()) for name in ("fit", "size"))
        assert records[step]["step"] == step + 1
        assert records[step]["train/fit"] == pytest.approx(fit)
        assert records[step]["train/size"] == pytest.approx(size)
        assert records[step]["train/loss"] == pytest.approx(fit + size)
        assert records[step]["train/grad_norm"] == pytest.approx(float(norm))
        assert records[step]["train/lr"] == pytest.approx(0.05 / (1 + step))
    torch.testing.assert_close(weights(module), weights(other))
    assert values["train/fit"] == records[-1]["train/fit"]
    assert values["train/samples_per_second"] > 0


@pytest.mark.parametrize("prefetch", [1, 5])
def test_prefetching_changes_nothing(tmp_path: Path, prefetch: int) -> None:
    _, module, records = train(tmp_path / "a", Line(dropout=0.5), prefetch=0)
    _, other, others = train(tmp_path / "b", Line(dropout=0.5), prefetch=prefetch)
    assert torch.equal(weights(module), weights(other))
    assert [record["train/loss"] for record in records] == [record["train/loss"] for record in others]


def test_global_randomness_belongs_to_the_step(tmp_path: Path) -> None:
    """Whatever was drawn before or between, dropout falls the same."""
    torch.manual_seed(1)
    _, module, _ = train(tmp_path / "a", Line(dropout=0.5))
    torch.manual_seed(2)
    np.random.seed(2)

    def noisy(key: BatchKey) -> tuple[int, Tensor]:
        torch.rand(3)
        return fetch(key)

    _, other, _ = train(tmp_path / "b", Line(dropout=0.5), fetch=noisy, prefetch=0)
    assert torch.equal(weights(module), weights(other))


def test_a_log_point_holds_the_mean_since_the_last_one(tmp_path: Path) -> None:
    _, _, every = train(tmp_path / "a")
    _, _, fourth = train(tmp_path / "b", log_every=4)
    assert [record["step"] for record in fourth] == [4, 6]
    losses = [record["train/fit"] for record in every]
    assert fourth[0]["train/fit"] == pytest.approx(sum(losses[:4]) / 4)
    assert fourth[1]["train/fit"] == pytest.approx(sum(losses[4:]) / 2)


def test_progress_tells_losses_rate_and_best(tmp_path: Path) -> None:
    reporter = Progress()
    run = make_run(tmp_path, reporter=reporter)
    make_trainer(run, evaluate=lambda: {"AP": 1.0}, watch="AP", evaluate_every=2).fit()
    run.log.close()
    assert [(done, total) for done, total, _ in reporter.seen] == [(done, 6) for done in range(7)]
    assert reporter.seen[0][2] == {}
    assert set(reporter.seen[-1][2]) == {"loss", "fit", "size", "lr", "samples/s", "best"}


# --- evaluation and the best checkpoint -------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "best"), [("max", 4), ("min", 2)])
def test_the_best_evaluation_keeps_its_checkpoint(tmp_path: Path, mode: str, best: int) -> None:
    scores = iter([5.0, 7.0, 6.0])
    module = Line()

    def evaluate() -> dict[str, float]:
        assert not module.training
        return {"AP": next(scores), "other": 0.0}

    values, _, records = train(tmp_path, module, evaluate=evaluate, evaluate_every=2, watch="AP", watch_mode=mode)
    assert module.training
    assert [record.get("AP") for record in records] == [None, 5.0, None, 7.0, None, 6.0]
    assert values["AP"] == 6.0
    store = CheckpointStore(tmp_path / "checkpoints")
    for which, step in (("best", best), ("last", 6)):
        loaded = store.load(which)
        assert loaded is not None
        assert loaded[1] == step
    assert RunDirectory(tmp_path).status()["best"] == {"max": 7.0, "min": 5.0}[mode]


def test_evaluate_every_0_evaluates_at_the_end_alone(tmp_path: Path) -> None:
    values, _, records = train(tmp_path, evaluate=lambda: {"AP": 1.0})
    assert [record["step"] for record in records if "AP" in record] == [6]
    assert values["AP"] == 1.0


def test_a_done_training_is_evaluated_again_and_trained_no_further(tmp_path: Path) -> None:
    """As after a kill during the last evaluation."""
    first, module, _ = train(tmp_path, evaluate=lambda: {"AP": 1.0}, watch="AP")
    again, other, _ = train(tmp_path, evaluate=lambda: {"AP": 1.0}, watch="AP")
    assert again == first
    assert torch.equal(weights(module), weights(other))


def test_watching_what_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 'AP50' to watch; it has AP"):
        train(tmp_path, evaluate=lambda: {"AP": 1.0}, watch="AP50")


# --- stopping and resuming --------------------------------------------------------------------------------------------


def test_a_stop_before_the_first_step_saves_it(tmp_path: Path) -> None:
    stop = StopFlag()
    stop.set("SIGTERM")
    run = make_run(tmp_path, stop=stop)
    with pytest.raises(Stopped, match=f"stopped on SIGTERM at step 0 of 6, saved; `paperbench resume {tmp_path}`"):
        make_trainer(run).fit()
    run.log.close()
    assert CheckpointStore(tmp_path / "checkpoints").load() is not None
    _, module, _ = train(tmp_path)
    _, other, _ = train(tmp_path / "other")
    assert torch.equal(weights(module), weights(other))


def test_resuming_restores_the_global_generators(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    train(tmp_path)
    expected = draw()
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    train(tmp_path)
    assert draw() == expected


def test_checkpoints_of_another_configuration_are_refused(tmp_path: Path) -> None:
    train(tmp_path)
    run = make_run(tmp_path, config_hash="def")
    with pytest.raises(
        CheckpointError, match=r"belong to another configuration \(abc, not def\): config.yaml was changed"
    ):
        make_trainer(run).fit()
    run.log.close()


def test_checkpoints_of_another_format_are_refused(tmp_path: Path) -> None:
    train(tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints")
    loaded = store.load()
    assert loaded is not None
    store.save({**loaded[0], "schema_version": 99}, step=6)
    with pytest.raises(CheckpointError, match="have format 99, this version reads 1"):
        train(tmp_path)


# --- what is not finite -----------------------------------------------------------------------------------------------


def deferred(trainer: Trainer) -> Trainer:
    """The check that a GPU run uses; the fused kernels of the CPU know `found_inf` as well."""
    trainer._deferred = DeferredCheck(trainer.optimizer, torch.device("cpu"), Ranks())
    return trainer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("spoilt", "named"), [({"nan_at": 3}, "size=nan"), ({"nan_gradient_at": 3}, "norm of the gradient=")]
)
def test_on_a_gpu_the_update_is_skipped_and_the_batch_named_at_the_next_log_point(
    tmp_path: Path, name: str, spoilt: dict[str, int], named: str
) -> None:
    def fit(path: Path, steps: int, module: Line) -> None:
        run = make_run(path)
        config = OptimConfig(name=name, lr=0.05, weight_decay=0.1)  # type: ignore[arg-type]
        optimizer = build_optimizer(config, [{"params": module.parameters()}])
        try:
            deferred(make_trainer(run, module, optimizer=optimizer, log_every=5, steps=steps)).fit()
        finally:
            run.log.close()

    module, sound = Line(**spoilt), Line()
    with pytest.raises(TrainingError) as caught:
        fit(tmp_path / "spoilt", 10, module)
    indices = EpochOrder(len(POINTS), 4, seed=1).batch(3).indices.tolist()
    assert f"not finite at step 3 (epoch 1): {named}" in str(caught.value)
    assert f"samples {indices}" in str(caught.value)
    assert module.calls == 5, "found at the log point, not before"
    fit(tmp_path / "sound", 3, sound)
    assert torch.equal(weights(module), weights(sound)), "neither step 3 nor those after it were made"
    assert not (tmp_path / "spoilt" / "checkpoints").exists()


def test_on_a_gpu_a_sound_run_is_the_same_with_either_check(tmp_path: Path) -> None:
    _, module, _ = train(tmp_path / "a")
    run = make_run(tmp_path / "b")
    trainer = deferred(make_trainer(run))
    trainer.fit()
    run.log.close()
    assert torch.equal(weights(module), weights(trainer.module))


def test_on_a_gpu_no_step_between_log_points_reads_a_value_back(tmp_path: Path) -> None:
    class Reads(TorchDispatchMode):
        """Counts what would make the host wait for a device."""

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.overloadpacket.__name__
            if name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique"):
                self.calls.append(name)
            return function(*args, **(kwargs or {}))

    run = make_run(tmp_path)
    trainer = deferred(make_trainer(run, clip_norm=0.1, prefetch=0))
    batches = [fetch(trainer.order.batch(step)) for step in range(4)]
    with Reads() as reads:
        for step, batch in enumerate(batches):
            trainer._step(step, batch)
    assert reads.calls == []
    with Reads() as reads:
        trainer._log(4)
        trainer._raise_if_not_finite()
    assert reads.calls != [], "the counter counts"
    run.log.close()


# --- saves by the clock -----------------------------------------------------------------------------------------------


class Hours:
    """A clock on which every look, and so every step, is an hour after the one before."""

    def __init__(self) -> None:
        self.hour = 0.0

    def __call__(self) -> float:
        self.hour += 3600
        return self.hour


class Recorded(CheckpointStore):
    """Remembers the steps of its saves."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.steps: list[int] = []

    def save(self, state: dict[str, Any], *, step: int, best: bool = False) -> None:
        self.steps.append(step)
        super().save(state, step=step, best=best)


def save_steps(path: Path, **changes: Any) -> list[int]:
    """The steps after which a training of 6 steps saves when an hour passes in each."""
    run = make_run(path)
    store = Recorded(run.directory.checkpoints)
    trainer = make_trainer(replace(run, checkpoints=store), **changes)
    trainer.save_timer = SaveTimer(trainer.save_timer.seconds, Hours())
    trainer.fit()
    run.log.close()
    return store.steps


def test_slow_steps_are_saved_by_the_clock(tmp_path: Path) -> None:
    assert save_steps(tmp_path / "never", checkpoint_seconds=0) == [6]
    # Writing takes an hour on this clock, so that it may happen once in a hundred.
    assert save_steps(tmp_path / "default") == [1, 6]
    assert save_steps(tmp_path / "third", checkpoint_seconds=3 * 3600) == [3, 6]
    assert save_steps(tmp_path / "steps first", checkpoint_every=2, checkpoint_seconds=3 * 3600) == [2, 4, 6]


def test_a_save_by_the_clock_changes_nothing(tmp_path: Path) -> None:
    with_clock, without = tmp_path / "with", tmp_path / "without"
    save_steps(with_clock, log_every=4, module=Line(dropout=0.3))
    save_steps(without, log_every=4, module=Line(dropout=0.3), checkpoint_seconds=0)
    found = [CheckpointStore(path / "checkpoints").load() for path in (with_clock, without)]
    assert found[0] is not None
    assert found[1] is not None
    assert all(torch.equal(found[0][0]["module"][name], found[1][0]["module"][name]) for name in found[0][0]["module"])
    clocked = {"time", "train/samples_per_second"}
    first, second = (
        [
            {name: value for name, value in record.items() if name not in clocked}
            for record in read(path / "metrics.jsonl")
        ]
        for path in (with_clock, without)
    )
    assert first == second


@pytest.mark.parametrize(("rank", "expected"), [(0, (False, True)), (1, (False, False))])
def test_the_clock_of_rank_0_decides_in_the_exchange_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, expected: tuple[bool, bool]
) -> None:
    exchanged: list[tuple[bool, ...]] = []

    def any_of(self: Ranks, flags: Sequence[bool]) -> tuple[bool, ...]:
        exchanged.append(tuple(flags))
        return False, False, True  # the clock of some rank says so

    monkeypatch.setattr(Ranks, "any_of", any_of)
    run = replace(make_run(tmp_path), ranks=Ranks(rank=rank, world=2))
    trainer = make_trainer(run)
    trainer.save_timer = SaveTimer(1, Hours())
    interrupt = trainer._step(0, fetch(trainer.order.batch(0)))
    run.log.close()
    assert exchanged == [(False, *expected)]
    assert interrupt == (False, True)


# --- a last step before the end ---------------------------------------------------------------------------------------


def test_a_training_stops_after_the_last_step_that_is_asked_for_and_goes_on_from_there(tmp_path: Path) -> None:
    def evaluate() -> dict[str, float]:
        return {"AP": 0.5}

    def session(path: Path, last_step: int) -> Trainer:
        run = make_run(path)
        run.stop.last_step = last_step
        trainer = make_trainer(run, Line(dropout=0.3), log_every=4, evaluate=evaluate, evaluate_at=[3])
        try:
            trainer.fit()
        finally:
            run.log.close()
        return trainer

    for _ in range(2):  # the second session finds nothing to do
        with pytest.raises(Stopped, match="stopped at step 3 of 6, saved"):
            session(tmp_path / "parts", 3)
        assert [record["step"] for record in read(tmp_path / "parts/metrics.jsonl") if "AP" in record] == [3]
    resumed, whole = session(tmp_path / "parts", 6), session(tmp_path / "whole", 0)
    assert torch.equal(weights(resumed.module), weights(whole.module))
    clocked = {"time", "train/samples_per_second"}
    first, second = (
        [
            {name: value for name, value in record.items() if name not in clocked}
            for record in read(path / "metrics.jsonl")
        ]
        for path in (tmp_path / "parts", tmp_path / "whole")
    )
    assert first == second


def test_the_last_step_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StopFlag().last_step == 0
    monkeypatch.setenv(ENV_LAST_STEP, "12")
    assert StopFlag().last_step == 12


def test_the_names_of_the_losses_stay_the_same(tmp_path: Path) -> None:
    class Fickle(Line):
        def forward(self, batch: tuple[int, Tensor], stream: torch.Generator) -> dict[str, Tensor]:
            losses = super().forward(batch, stream)
            return {"renamed": losses["fit"]} if batch[0] == 2 else losses

    with pytest.raises(
        ValueError, match=r"returned the losses \('renamed',\), and \('fit', 'size'\) in an earlier step"
    ):
        train(tmp_path, Fickle())
