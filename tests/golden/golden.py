"""The first training steps of small models, loss by loss.

A change that is not meant to change results leaves these numbers alone. One that is meant to renews them, and says so:

    uv run python -m tests.golden.golden            # all of them
    uv run python -m tests.golden.golden vae        # one
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paperbench.config.compose import compose
from paperbench.engine.launch import start
from paperbench.engine.metriclog import read
from paperbench.engine.reporter import SilentReporter

COMMON = (
    "scale=smoke",
    "precision=float32",
    "device=cpu",
    "threads=1",
    "train.log_every=1",
    "train.checkpoint_every=100",
)
DISTILL = (
    "data.max_train_images=200",
    "data.max_test_images=50",
    "train.samples=400",
    "train.batch_size=20",
    "train.evaluate_every=0",
)
VAE = ("train.samples=400", "evaluation.importance_samples=0", "evaluation.pictures=false")


@dataclass(frozen=True)
class Case:
    """An experiment and what is small about it; every loss of each of its `steps` is pinned, in every stage."""

    experiment: str
    overrides: tuple[str, ...]
    steps: int = 20


CASES = {
    "faster_rcnn": Case("faster-rcnn", ("train.samples=40", "optim.lr=1e-4")),
    "mask_rcnn": Case("mask-rcnn", ("train.samples=20", "optim.lr=1e-4"), steps=10),
    "rfcn": Case("rfcn", ("train.samples=20", "optim.lr=1e-4"), steps=10),
    "ssd": Case("ssd", ("train.samples=20", "optim.lr=1e-4"), steps=10),
    "yolo": Case("yolo", ("train.samples=20", "optim.lr=1e-4", "model.deformable=1"), steps=10),
    "vae": Case("vae", VAE),
    "vae_wake_sleep": Case("vae", (*VAE, "estimator=wake-sleep", "optim.name=adagrad", "prior=true")),
    "vae_mcem": Case("vae", (*VAE, "estimator=mcem", "model.latent=3", "evaluation.marginal.images=1")),
    "vae_m2": Case("vae-semi", ("train.samples=400",)),
    "distill": Case(
        "distill",
        (*DISTILL, "teaching.samples=400", "teaching.batch_size=20", "teaching.net.max_norm=1", "temperature=4"),
    ),
    "distill_specialists": Case(
        "distill-specialists",
        (
            *DISTILL,
            "specialists.samples=400",
            "specialists.size=5",
            "specialists.count=1",
            "specialists.soft_weight=0.5",
        ),
    ),
}


def pinned(name: str) -> Path:
    """Where the losses of a case are kept."""
    return Path(__file__).with_name(f"{name}.json")


def measure(case: Case, folder: Path) -> list[dict[str, float]]:
    """The losses of each step, by name; the run is written to `folder`, which must not exist, and what it shares beside it."""
    composed = compose(case.experiment, [*COMMON, *case.overrides, f"output.root={folder.parent}"])
    start(composed.resolved, run_dir=folder, reporter=SilentReporter())
    records = read(folder / "metrics.jsonl")
    losses = [{name: value for name, value in record.items() if "train/loss" in name} for record in records]
    return [step for step in losses if step]


def main() -> None:
    """Writes the losses of this machine over the pinned ones, of the cases that the command line names or of all."""
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            losses = measure(CASES[name], Path(scratch) / "run")
        lines = ",\n".join(json.dumps(step) for step in losses)
        pinned(name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
