"""Task `vae-train`: images, a model and its guide from the configuration, the trainer, the measurements, and pictures."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.engine.run import Run
from paperbench.vae import pixels
from paperbench.vae.checks import check
from paperbench.vae.config import VaeTrain
from paperbench.vae.describe import describe_learning, describe_model, describe_schedule
from paperbench.vae.export import export_model
from paperbench.vae.predict import predict
from paperbench.vae.stacked import run_stacked, stack_key
from paperbench.vae.training import Part, load

__all__ = ["export_model", "plan", "predict", "run", "run_stacked", "stack_key"]


def plan(config: VaeTrain) -> Mapping[str, str]:
    """What would be trained on what, in words; refuses what could not be, before anything is written."""
    check(config)
    return {
        "data": pixels.describe(config.data, config.binarisation),
        "model": describe_model(config),
        "learning": describe_learning(config),
        "schedule": describe_schedule(config),
    }


def run(config: VaeTrain, run: Run) -> dict[str, float]:
    """Trains, measures on the test split, draws; see `engine.task.Task`."""
    part = Part.of(config, run, *load(config, run.device))
    part.compile(part.objective)
    return part.conclude(part.trainer.fit())
