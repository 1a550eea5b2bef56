"""One step of a specialist of `distill-specialists` against a plain one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.distill.nets import build
from paperbench.distill.specialists import training as specialist_training
from paperbench.distill.specialists.training import SpecialistTraining
from paperbench.engine.trainer import build_trainer
from tests.peers.distill.test_training_step import forward
from tests.peers.steps import Step, Weights, hold_against, opened, take_step

SMALL = (
    "data.train_images=300",
    "data.test_images=20",
    "model.width=7",
    "model.layers=2",
    "specialists.samples=20",
    "specialists.batch_size=20",
    "specialists.optim.schedule=constant",
    "specialists.optim.warmup_steps=0",
    "jitter=0",
)

CASES = {
    "labels alone": ("specialists.soft_weight=0",),
    "soft targets": ("specialists.soft_weight=0.5", "specialists.temperature=2"),
    "soft targets, T = 1": ("specialists.soft_weight=3", "specialists.temperature=1"),
    "SGD": ("specialists.soft_weight=0.5", "specialists.optim.name=sgd", "specialists.optim.lr=0.05"),
}

MEMBERS = (2, 5, 11, 30)


@pytest.mark.parametrize(("case", "seed"), [(case, number) for number, case in enumerate(CASES)])
def test_a_specialists_step_is_the_plain_one(
    case: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*SMALL, *CASES[case], f"seed={seed}", f"output.root={tmp_path}")
    taken: list[tuple[Step, Any, Tensor]] = []
    with opened(tmp_path / "run", "distill-specialists", *words) as (config, run):
        training = SpecialistTraining.of(config, run)
        torch.manual_seed(seed)
        generalist = build(config.model, size=training.train.size, classes=training.classes)
        v = training._logits(generalist, training.train)

        class Watched:
            def __init__(self, view: Any, module: Any, **named: Any) -> None:
                self.module = module
                self.trainer = build_trainer(view, module, **named)

            def fit(self) -> dict[str, float]:
                key = self.trainer.order.batch(0)
                step = take_step(self.trainer, run.directory.metrics_file)
                taken.append((step, self.trainer.fetch(key), torch.from_numpy(key.indices)))
                return {}

        monkeypatch.setattr(specialist_training, "build_trainer", Watched)
        _, correction = training._specialist(0, MEMBERS, generalist, v if config.specialists.soft_weight else None)
        ((step, batch, rows),) = taken
        labels = training.train.labels.tolist()
        known = [label in MEMBERS for label in labels]
        assert correction == pytest.approx(math.log((len(known) - sum(known)) / sum(known)))
        assert sum(known[row] for row in rows.tolist()) == 10
        own = torch.tensor([MEMBERS.index(labels[row]) if known[row] else len(MEMBERS) for row in rows.tolist()])
        heat, weight = config.specialists.temperature, config.specialists.soft_weight

        def losses(weights: Weights) -> dict[str, Tensor]:
            z = forward(weights, "net.", batch.inputs.double())
            found = {"loss_hard": -F.log_softmax(z, 1)[range(len(own)), own].mean()}
            if weight:
                p = F.softmax(v[rows].double(), 1)
                inside = p[:, list(MEMBERS)]
                # The dustbin's logit is too small by the correction until that is added after training.
                dustbin = (1 - inside.sum(1, keepdim=True)) * math.exp(-correction)
                target = torch.cat([inside, dustbin], 1) ** (1 / heat)
                target = target / target.sum(1, keepdim=True)
                soft = F.kl_div(F.log_softmax(z / heat, 1), target, reduction="batchmean")
                found["loss_soft"] = weight * heat**2 * soft
            return found

        clip = config.train.clip_norm
        hold_against(step, losses, optim=config.specialists.optim, clip_norm=clip, prefix="specialist-0/train/")
