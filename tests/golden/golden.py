"""Twenty training steps of a tiny Faster R-CNN, loss by loss.

A change that is not meant to change results leaves these numbers alone. One that is meant to renews them, and says so:

    uv run python -m tests.golden.golden
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from paperbench.config.compose import compose
from paperbench.engine.launch import start
from paperbench.engine.metriclog import read
from paperbench.engine.reporter import SilentReporter

PINNED = Path(__file__).with_name("faster_rcnn.json")
OVERRIDES = [
    "scale=smoke",
    "precision=float32",
    "device=cpu",
    "threads=1",
    "train.samples=40",
    "train.log_every=1",
    "train.checkpoint_every=100",
    "optim.lr=1e-4",
]


def measure(folder: Path) -> list[dict[str, float]]:
    """The losses of each of the 20 steps, by name; the run is written to `folder`, which must not exist."""
    composed = compose("faster-rcnn", OVERRIDES)
    start(composed.resolved, run_dir=folder, reporter=SilentReporter())
    steps = [record for record in read(folder / "metrics.jsonl") if "train/loss" in record]
    return [{name: value for name, value in step.items() if name.startswith("train/loss")} for step in steps]


def main() -> None:
    """Writes the losses of this machine over the pinned ones."""
    with tempfile.TemporaryDirectory() as scratch:
        losses = measure(Path(scratch) / "run")
    lines = ",\n".join(json.dumps(step) for step in losses)
    PINNED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
