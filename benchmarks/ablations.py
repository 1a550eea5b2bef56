"""What the twelve rows of Faster R-CNN's table 2 cost, against one plain evaluation of the same weights.

    uv run python -m benchmarks.ablations RUN

RUN is a trained run of faster-rcnn. Both are timed as `paperbench eval` makes them, in this process: the detector over the test
split and the scores of what it found, without reading the images and without drawing. One after the other, `--rounds` times; each
number is the median, the ratio that of neighbouring rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import machine, write
from paperbench.config.validate import load_file
from paperbench.detection import datasets
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectTrain
from paperbench.detection.evaluation import analysis
from paperbench.detection.evaluation.inference import Scorer
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag


def scorer_of(config: DetectTrain, trained: Path, folder: Path) -> Scorer:
    """What evaluates the trained detector, its images decoded already."""
    device = devices.resolve(config.device)
    dataset = datasets.load(config.data, "test")
    model, _ = load_detector(config, trained, device, classes=dataset.classes)
    run = Run(
        directory=RunDirectory(folder),
        device=device,
        precision=devices.resolve_precision(config.precision, device),
        ranks=Ranks(),
        reporter=SilentReporter(),
        stop=StopFlag(),
        log=MetricLog(),
        checkpoints=CheckpointStore(folder / "checkpoints"),
        seed=config.seed,
        config_hash="benchmark",
    )
    scorer = Scorer(config, dataset, model, run)
    scorer()
    return scorer


def seconds(work: Any) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints and writes `results/ablations-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    _, config, _ = load_file(options.run / "config.yaml")
    config.evaluation.ablations, config.evaluation.timed_images, config.evaluation.bootstrap = True, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        scorer = scorer_of(config, options.run, Path(scratch))
        analysis.measure(config, scorer)
        rounds = [(seconds(scorer), seconds(lambda: analysis.measure(config, scorer))) for _ in range(options.rounds)]
    plain, rows = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(ablation / once for once, ablation in rounds)
    print(f"plain evaluation {plain:.2f} s, twelve rows {rows:.2f} s, ratio {ratio:.2f}")
    device = devices.resolve(config.device).type
    row = {
        "data": config.data.name,
        "images": len(scorer.dataset),
        "backbone": config.model.backbone,
        "proposals": config.model.rpn.post_nms_topk_test,
        "ranked": config.model.rpn.pre_nms_topk_test,
        "rounds": options.rounds,
        "plain_s": f"{plain:.3f}",
        "rows_s": f"{rows:.3f}",
        "ratio": f"{ratio:.2f}",
        "lowest": f"{min(a / b for b, a in rounds):.2f}",
        "highest": f"{max(a / b for b, a in rounds):.2f}",
        **machine(device),
    }
    print(write(f"ablations-{device}", [row]))


if __name__ == "__main__":
    main()
