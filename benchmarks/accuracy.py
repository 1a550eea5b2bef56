"""Accuracy side by side: our training against a peer's, or a plain loop, on the same data with the same schedule and seeds.

    uv run python -m benchmarks.accuracy                                               generated scenes, three seeds
    uv run python -m benchmarks.accuracy --data-root DIR --weights FILE.pth            and Penn-Fudan, with SqueezeNet
    uv run python -m benchmarks.accuracy --nets mask-rcnn --seeds 0 --samples 800      a part of it
    uv run python -m benchmarks.accuracy --overrides model.head.sigma=3                ours with a setting of the peer
    uv run python -m benchmarks.accuracy --peer-rules boundary init                    the peer with rules of the paper
    uv run python -m benchmarks.accuracy --subjects vae stn distill                    against plain loops
    uv run python -m benchmarks.accuracy --table                                       the CSV as a table over seeds

A cell is one training and its evaluation: a subject, a workload, a net, a side, a seed and a number of images. Its metrics go to
`results/accuracy-<device>.csv`, a row each, as soon as they are known. Cells that are there already are not measured again
(`--again` does), so the command continues where it was stopped; the rows of other cells stay.

A subject is a function that lists its cells (`SUBJECTS`). `detection` is Faster R-CNN, Mask R-CNN and SSD against torchvision's
(`benchmarks/torchvision_detectors.py` says what the two sides share), in float32. Both sides are scored by the same code:
pycocotools, on boxes and on masks in pixels of the stored image. `mask/area` is the area of drawn masks over that of the objects
that they were drawn for: detections with a score of at least 0.5 whose box overlaps an object of their class by at least 0.5.

`vae`, `stn` and `distill` are held against `benchmarks/plain_loops.py`, on scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks import plain_loops, torchvision_detectors
from benchmarks.common import earlier_rows, machine, read, write
from benchmarks.plain_loops import Schedule
from benchmarks.torchvision_detectors import Found
from paperbench.config.compose import compose
from paperbench.data.detection import DetectionSet, Record
from paperbench.detection import boxes as box_ops
from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectTrain
from paperbench.detection.evaluation import coco
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.inference import per_image
from paperbench.detection.masks import in_image
from paperbench.engine import launch
from paperbench.engine.reporter import Outcome, SilentReporter
from paperbench.engine.rundir import DONE

KEYS = ("subject", "workload", "net", "side", "seed", "samples")
"""Columns that tell one cell from another."""

Metrics = dict[str, float]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: `measure` trains, evaluates and returns metrics by name. `side` is `ours` or the name of the peer."""

    subject: str
    workload: str
    net: str
    side: str
    seed: int
    samples: int
    measure: Callable[[], Metrics]

    @property
    def key(self) -> tuple[str, ...]:
        """The values of `KEYS`, as a CSV has them."""
        return tuple(str(getattr(self, name)) for name in KEYS)


# --- detection --------------------------------------------------------------------------------------------------------

NETS = ("faster-rcnn", "mask-rcnn", "ssd")
SURE, SAME = 0.5, 0.5
"""Least score and overlap of a detection whose mask's area is compared."""


def detection(arguments: argparse.Namespace) -> list[Cell]:
    """The cells of detectors, seed after seed: whatever is stopped early has all sides of a seed."""
    workloads: dict[str, tuple[str, ...]] = {"shapes, small, 160 px": ()}
    if arguments.data_root is not None:
        weights = (f"model.weights={arguments.weights}",) if arguments.weights is not None else ()
        overrides = ("data=pennfudan", f"data.root={arguments.data_root}", "model.backbone=squeezenet1_1", *weights)
        workloads["pennfudan, squeezenet1_1, 320 px"] = overrides
    changed, rules = arguments.overrides, arguments.peer_rules
    sides: dict[str, Callable[[str, Sequence[str], Path], Metrics]] = {
        "ours": _our_detector,
        "torchvision": partial(_torchvision_detector, rules=rules),
    }
    if changed or rules:
        ours, peer = (f"ours, {' '.join(changed)}", f"torchvision, {' '.join(rules)}")
        sides = ({ours: sides["ours"]} if changed else {}) | ({peer: sides["torchvision"]} if rules else {})

    def cell(workload: str, net: str, side: str, seed: int) -> Cell:
        chosen = ("scale=short", f"train.samples={arguments.samples}", f"seed={seed}", "precision=float32")
        overrides = [*workloads[workload], *chosen, f"device={arguments.device}", *changed]
        folder = arguments.runs / "-".join([workload.split(",")[0], net, str(arguments.samples), str(seed), *changed])
        return Cell(
            subject="detection",
            workload=workload,
            net=net,
            side=side,
            seed=seed,
            samples=arguments.samples,
            measure=lambda: sides[side](net, overrides, folder),
        )

    return [
        cell(workload, net, side, seed)
        for workload in workloads
        for seed in arguments.seeds
        for net in arguments.nets
        for side in sides
    ]


def _our_detector(net: str, overrides: Sequence[str], folder: Path) -> Metrics:
    """Those of a run of the program, in `folder`; a run that is there is continued, or read if it is finished."""
    composed = compose(net, overrides)
    _finished_run(composed.resolved, folder)
    return score_run(composed.config, folder)


def _finished_run(resolved: Mapping[str, Any], folder: Path) -> Outcome:
    """Do the run, continue it, or read its results if it is done. Raises SystemExit for a run that was stopped."""
    if (folder / "config.yaml").exists():
        outcome = launch.resume(folder, SilentReporter())
    else:
        outcome = launch.start(resolved, run_dir=folder, reporter=SilentReporter())
    if outcome.status != DONE:  # its weights are those of the middle of a training
        raise SystemExit(outcome.message)
    return outcome


def score_run(config: DetectTrain, folder: Path) -> Metrics:
    """The metrics of a finished run of the program, its detections made again from its weights."""
    device = torch.device(config.device)
    model, _ = load_detector(config, folder, device)
    dataset = datasets.load(config.data, "test")
    store = datasets.store(config.data, dataset, device)
    make = BatchMaker(dataset, store, flip=0.0, seed=0, multiple=model.multiple, square=model.square, training=False)
    detections: list[Detections] = []
    size = config.evaluation.batch_size
    with torch.inference_mode():
        for start in range(0, len(dataset), size):
            indices = np.arange(start, min(start + size, len(dataset)))
            batch = make(indices, np.zeros_like(indices))
            detections += [found for found, _ in per_image(*model.detect(batch), batch)]
    pairs = zip(detections, dataset.records, strict=True)
    return score(dataset, [_in_pixels(found, record) for found, record in pairs])


def _in_pixels(found: Detections, record: Record) -> Found:
    masks = None
    if found.masks is not None:
        masks = np.zeros((len(found), record.height, record.width), bool)
        for plane, frame, box in zip(masks, found.masks, found.boxes, strict=True):
            plane[:] = in_image(frame, box, record.height, record.width)
    return Found(boxes=found.boxes, scores=found.scores, labels=found.labels, masks=masks)


def _torchvision_detector(net: str, overrides: Sequence[str], folder: Path, rules: Sequence[str] = ()) -> Metrics:
    config: DetectTrain = compose(net, overrides).config
    train, test = (datasets.load(config.data, split) for split in ("train", "test"))
    model = torchvision_detectors.train(config, train, config.seed, config.train.samples, rules)
    folder.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        model.state_dict(), folder.parent / f"{folder.name}-torchvision{''.join(f'-{rule}' for rule in rules)}.pt"
    )
    return score(test, torchvision_detectors.detect(model, test, config.evaluation.batch_size))


def score(dataset: DetectionSet, found: Sequence[Found]) -> Metrics:
    """Average precisions of boxes, and of masks where there are any, in percent, and `mask/area`, a ratio."""
    plain = [Detections(boxes=own.boxes, scores=own.scores, labels=own.labels) for own in found]
    boxes = coco.evaluate(dataset.records, plain, dataset.classes).metrics()
    metrics = {name: boxes[f"coco/{name}"] for name in ("AP", "AP50", "AP75")}
    if all(own.masks is not None for own in found):
        metrics |= mask_precision(dataset, found)
        metrics["mask/area"] = area_ratio(dataset, found)
    return metrics


def mask_precision(dataset: DetectionSet, found: Sequence[Found]) -> Metrics:
    """`mask/AP`, `mask/AP50` and `mask/AP75` in percent: pycocotools itself, on masks in pixels."""
    annotations: list[dict[str, Any]] = []
    results: Any = []
    images: Any = {
        "images": [
            {"id": image, "height": record.height, "width": record.width}
            for image, record in enumerate(dataset.records)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)],
        "annotations": annotations,
    }
    assert dataset.masks is not None
    for image, (record, own) in enumerate(zip(dataset.records, found, strict=True)):
        for mask, label, crowd in zip(dataset.masks(image), record.labels, record.crowd, strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "iscrowd": int(crowd)}
                | {"segmentation": _runs(mask), "area": float(mask.sum())}
            )
        assert own.masks is not None
        results += [
            {"image_id": image, "category_id": int(label), "score": float(score), "segmentation": _runs(mask)}
            for mask, label, score in zip(own.masks, own.labels, own.scores, strict=True)
        ]
    if not results:
        return {"mask/AP": 0.0, "mask/AP50": 0.0, "mask/AP75": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = images
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {f"mask/{name}": 100 * float(evaluation.stats[place]) for place, name in enumerate(("AP", "AP50", "AP75"))}


def _runs(mask: NDArray[np.bool_]) -> Any:
    return runs.encode(np.asfortranarray(mask.astype(np.uint8)))


def area_ratio(dataset: DetectionSet, found: Sequence[Found]) -> float:
    """Return the area of drawn masks over that of their objects, summed over all pairs; NaN without any."""
    drawn = true = 0.0
    assert dataset.masks is not None
    for image, (record, own) in enumerate(zip(dataset.records, found, strict=True)):
        masks = dataset.masks(image)
        assert own.masks is not None
        for mask, box, label, score in zip(own.masks, own.boxes, own.labels, own.scores, strict=True):
            candidates = np.flatnonzero(record.labels == label)
            if score < SURE or not len(candidates):
                continue
            overlap = box_ops.iou(torch.from_numpy(box[None]), torch.from_numpy(record.boxes[candidates]))[0]
            if overlap.max() >= SAME:
                drawn += mask.sum()
                true += masks[candidates[int(overlap.argmax())]].sum()
    return drawn / true if true else float("nan")


# --- against plain loops ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PlainLoop:
    """An experiment with small settings, and the loop of `benchmarks.plain_loops` with the same."""

    experiment: str
    workload: str
    net: str
    samples: int
    overrides: tuple[str, ...]
    loop: Callable[[int], Metrics]
    metrics: tuple[str, ...]


_TEACHING = Schedule(samples=60_000, batch=64, rate=1e-3, warmup=100, cosine=True)
_LEARNING = Schedule(samples=30_000, batch=64, rate=1e-3, warmup=100, cosine=True)

PLAIN_LOOPS = {
    "vae": PlainLoop(
        experiment="vae",
        workload="digits",
        net="mlp, 20 latent dimensions",
        samples=100_000,
        overrides=("evaluation.importance_samples=0", "evaluation.pictures=false"),
        loop=lambda seed: plain_loops.vae(seed, Schedule(samples=100_000, batch=100, rate=1e-3)),
        metrics=("test/bound",),
    ),
    "stn": PlainLoop(
        experiment="stn-mnist",
        workload="digits, rotated",
        net="st-cnn, 16 filters",
        samples=102_400,
        overrides=("distortion=r", "model.filters=16", "evaluation.pictures=0"),
        loop=lambda seed: plain_loops.stn(
            seed, Schedule(samples=102_400, batch=256, rate=2e-3, warmup=100, cosine=True)
        ),
        metrics=("test/error",),
    ),
    "distill": PlainLoop(
        experiment="distill",
        workload="digits",
        net="mlp, 400 units teach 50",
        samples=30_000,
        overrides=("teaching.net.width=400", "teaching.samples=60000", "model.width=50", "evaluation.examples=0"),
        loop=lambda seed: plain_loops.distill(seed, _TEACHING, _LEARNING),
        metrics=("teacher/test/error", "baseline/test/error", "distilled/test/error"),
    ),
}
"""By subject."""


def _against_plain_loop(subject: str, arguments: argparse.Namespace) -> list[Cell]:
    """The cells of one of `PLAIN_LOOPS`; its settings are fixed, the command line's are those of detectors."""
    case = PLAIN_LOOPS[subject]

    def ours(seed: int) -> Metrics:
        chosen = ("scale=short", f"train.samples={case.samples}", f"seed={seed}", "precision=float32", "device=cpu")
        composed = compose(case.experiment, [*chosen, *case.overrides])
        folder = arguments.runs / f"{subject}-{case.samples}-{seed}"
        results = _finished_run(composed.resolved, folder).results
        assert results is not None
        return {name: float(results["metrics"][name]) for name in case.metrics}

    def cell(side: str, seed: int) -> Cell:
        return Cell(
            subject=subject,
            workload=case.workload,
            net=case.net,
            side=side,
            seed=seed,
            samples=case.samples,
            measure=lambda: ours(seed) if side == "ours" else case.loop(seed),
        )

    return [cell(side, seed) for seed in arguments.seeds for side in ("ours", "plain loop")]


# --- subjects, rows, table --------------------------------------------------------------------------------------------

SUBJECTS: dict[str, Callable[[argparse.Namespace], list[Cell]]] = {
    "detection": detection,
    **{subject: partial(_against_plain_loop, subject) for subject in PLAIN_LOOPS},
}
"""Functions that list the cells of a subject for the options of the command line."""


def rows(cell: Cell, metrics: Metrics, seconds: float, device: str) -> list[Row]:
    """A row for each metric of a cell, with the machine."""
    named = dict(zip(KEYS, cell.key, strict=True))
    made = machine(device)
    return [
        {**named, "metric": name, "value": f"{value:.4g}", "seconds": f"{seconds:.0f}", **made}
        for name, value in metrics.items()
        if not math.isnan(value)
    ]


def measure(cells: Iterable[Cell], name: str, device: str, *, again: bool) -> None:
    """Measure the cells that `results/<name>.csv` does not hold, and write each as it is done."""
    for cell in cells:
        if not again and any(tuple(line[key] for key in KEYS) == cell.key for line in read(name)):
            continue
        began = time.perf_counter()
        metrics = cell.measure()
        own = rows(cell, metrics, time.perf_counter() - began, device)
        write(name, [*earlier_rows(name, own, KEYS), *own])
        values = "  ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        print(f"{' / '.join(cell.key)}: {values}", flush=True)


def table(lines: Sequence[dict[str, str]]) -> list[str]:
    """Lines of a table: each metric of each net, ours and the peer's as mean and standard deviation over seeds.

    `level` where the means differ by no more than the seeds do: twice the standard error of the difference. One seed says nothing.
    """
    values: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        case = tuple(line[key] for key in ("subject", "workload", "net", "samples", "metric"))
        values[case][line["side"]].append(float(line["value"]))
    made = ["| workload | net | images | metric | ours | peer | difference | |", "|---|---|---|---|---|---|---|---|"]
    for (_, workload, net, samples, metric), sides in values.items():
        ours = sides.pop("ours", [])
        for peer, theirs in sides.items():
            if not ours:
                continue
            difference, verdict = mean(ours) - mean(theirs), ""
            if min(len(ours), len(theirs)) > 1:
                error = (stdev(ours) ** 2 / len(ours) + stdev(theirs) ** 2 / len(theirs)) ** 0.5
                verdict = "level" if abs(difference) <= 2 * error else "apart"
            cells = (
                workload,
                net,
                samples,
                metric,
                _spread(ours),
                f"{peer} {_spread(theirs)}",
                f"{difference:+.3g}",
                verdict,
            )
            made.append(f"| {' | '.join(cells)} |")
    return made


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def main() -> None:
    """Measures the cells that were asked for, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=["detection"], choices=list(SUBJECTS))
    parser.add_argument("--data-root", type=Path, help="folder with PennFudanPed")
    parser.add_argument("--weights", type=Path, help="SqueezeNet's weights (torchvision squeezenet1_1)")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2400, help="images of a training")
    parser.add_argument("--runs", type=Path, default=Path("outputs/accuracy"), help="folder of our runs")
    parser.add_argument(
        "--overrides",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="our side alone, with other settings than shipped",
    )
    parser.add_argument(
        "--peer-rules",
        nargs="+",
        default=[],
        choices=torchvision_detectors.PAPER,
        help="torchvision's side alone, with rules of the paper in place of its own",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--again", action="store_true", help="measure also what the CSV holds")
    parser.add_argument("--table", action="store_true", help="print the CSV as a table, measure nothing")
    arguments = parser.parse_args()
    name = f"accuracy-{arguments.device}"
    if arguments.table:
        print(*table(read(name)), sep="\n")
        return
    for subject in arguments.subjects:
        measure(SUBJECTS[subject](arguments), name, arguments.device, again=arguments.again)


if __name__ == "__main__":
    main()
