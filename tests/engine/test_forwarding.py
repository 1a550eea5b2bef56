"""Each setting of a training, and each fact of a run, arrives where it is used, under its own name."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine import session, trainer
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import EpochOrder
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter

CPU = torch.device("cpu")
LOOP = LoopConfig(
    samples=90, batch_size=6, clip_norm=0.5, log_every=3, evaluate_every=7, checkpoint_every=11, prefetch=2
)


def a_run(**changes: Any) -> Any:
    facts = {
        "device": CPU,
        "precision": "bfloat16",
        "seed": 5,
        "ranks": Ranks(rank=1, world=2),
        "reporter": SilentReporter(),
    }
    return SimpleNamespace(**{**facts, **changes})


def test_every_setting_reaches_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(trainer, "Trainer", lambda **settings: seen.update(settings))
    optim = OptimConfig(lr=0.25, schedule="cosine", warmup_steps=4)

    def fetch(key: Any) -> None: ...

    def evaluate() -> dict[str, float]:
        return {}

    module = nn.Linear(2, 1)
    trainer.build_trainer(
        a_run(), module, optim=optim, loop=LOOP, order=30, fetch=fetch, evaluate=evaluate, evaluate_at=[4, 9],
        watch="AP", watch_mode="min",
    )  # fmt: skip
    for field in fields(LoopConfig):
        if field.name not in ("samples", "batch_size") and field.name in seen:
            assert seen[field.name] == getattr(LOOP, field.name), field.name
    assert {"clip_norm", "log_every", "evaluate_every", "checkpoint_every", "prefetch"} <= seen.keys()
    assert (seen["steps"], seen["watch"], seen["watch_mode"], list(seen["evaluate_at"])) == (15, "AP", "min", [4, 9])
    assert (seen["module"], seen["fetch"], seen["evaluate"]) == (module, fetch, evaluate)
    order = seen["order"]
    assert (order.length, order.batch_size, order.seed, order.rank, order.world) == (30, 6, 5, 1, 2)
    factor = lr_factor(optim, 15)
    assert [seen["lr_factor"](step) for step in range(15)] == [factor(step) for step in range(15)]
    assert {group["base_lr"] for group in seen["optimizer"].param_groups} == {0.25}


def test_an_order_of_its_own_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(trainer, "Trainer", lambda **settings: seen.update(settings))
    order = EpochOrder(12, 6, 99)
    trainer.build_trainer(a_run(), nn.Linear(2, 1), optim=OptimConfig(), loop=LOOP, order=order, fetch=lambda key: None)
    assert seen["order"] is order


def optimizer_of(config: OptimConfig) -> Any:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    built = build_optimizer(config, [{"params": net.parameters()}])
    groups = [{key: value for key, value in group.items() if key != "params"} for group in built.param_groups]
    sizes = [len(group["params"]) for group in built.param_groups]
    return type(built), groups, sizes, [lr_factor(config, 10)(step) for step in range(10)]


OPTIM = {
    "name": "adagrad", "lr": 0.5, "weight_decay": 0.125, "decay_norm_and_bias": False, "momentum": 0.25,
    "schedule": "cosine", "warmup_steps": 3, "milestones": (0.2,), "gamma": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("key", [field.name for field in fields(OptimConfig) if field.name != "backbone_lr_scale"])
def test_every_key_of_the_optimizer_changes_it(key: str) -> None:
    config = OptimConfig(weight_decay=0.01, milestones=(0.5,))
    assert optimizer_of(replace(config, **{key: OPTIM[key]})) != optimizer_of(config)


def test_momentum_is_that_of_the_configuration() -> None:
    built = build_optimizer(OptimConfig(momentum=0.375), [{"params": nn.Linear(2, 1).parameters()}])
    assert {group["momentum"] for group in built.param_groups} == {0.375}


def test_results_name_what_the_run_did_not_what_was_asked_for() -> None:
    written: dict[str, Any] = {}
    directory = SimpleNamespace(
        path="x", write_results=lambda **facts: written.update(facts) or {}, update_status=lambda **_: None
    )
    resolved = {"precision": "auto", "device": "auto", "seed": 5}
    session.finish(a_run(directory=directory), resolved, {"a": 1.0}, "data", stacked=3)
    assert (written["precision"], written["stacked"], written["data"]) == ("bfloat16", 3, "data")
    assert written["metrics"] == {"a": 1.0}
    assert "cpu" in str(written["device"]).lower()


def test_a_task_sees_the_seed_and_the_precision_of_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "identity", lambda file: f"hash of {file}")
    directory: Any = SimpleNamespace(checkpoints=tmp_path / "c", config_file="f", metrics_file=tmp_path / "m")
    config: Any = SimpleNamespace(tensorboard=False, seed=17)
    unused: Any = nullcontext()
    made = session.open_run(config, {}, directory, CPU, "bfloat16", Ranks(), SilentReporter(), unused)
    with made as run:
        assert (run.seed, run.precision, run.device, run.config_hash) == (17, "bfloat16", CPU, "hash of f")
        assert run.checkpoints.directory == tmp_path / "c"


def test_a_group_keeps_its_own_decay_and_rate() -> None:
    one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    groups = [{"params": one.parameters(), "weight_decay": 0.5, "lr_scale": 0.25}, {"params": other.parameters()}]
    built = build_optimizer(OptimConfig(lr=2.0, weight_decay=0.125), groups)
    assert [(group["weight_decay"], group["base_lr"]) for group in built.param_groups] == [(0.5, 0.5), (0.125, 2.0)]
