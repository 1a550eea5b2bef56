"""Distorted digits: inputs and training steps, ours against a DataLoader with torchvision's transforms and the same net.

    uv run python -m benchmarks.stn input step --data DIR
    uv run python -m benchmarks.stn svhn

`input`: images a second of the input pipeline alone. `step`: images a second of a whole training step, ours as the program's own
trainer reports them. Both sides in turns in one run, each in a process of its own, medians; the DataLoader with whichever number of
workers is faster. `svhn`: seconds of a training step of CNN, ST-CNN Single and ST-CNN Multi, in turns. DIR holds MNIST/raw; without
it the embedded digits are used.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import stn_baseline as baseline
from benchmarks.common import earlier_rows, machine, write
from paperbench.config.compose import compose
from paperbench.engine.device import has_bfloat16, keep_freed_memory
from paperbench.engine.launch import start
from paperbench.engine.order import EpochOrder
from paperbench.engine.reporter import SilentReporter
from paperbench.stn.config import HouseNumberModel
from paperbench.stn.data import training_digits
from paperbench.stn.distortions import make_distortion
from paperbench.stn.house_numbers import HouseNumberNet, sequence_loss

BATCH = baseline.BATCH
EXPECTED = {"st-cnn": 10_000, "st-fcn": 40_000}
"""Images a second of our trainer on two cores, roughly: how many steps it takes for a round of some seconds."""
CPU = torch.device("cpu")
KEYS = ("part", "distortion", "net", "stock_precision")
"""Columns that tell one line of the speed's CSV from another."""


def stock(distortion: str, workers: int, data: str | None, *options: str, seconds: float = 4.0) -> float:
    """Measure images a second of the net of `benchmarks.stn_baseline`, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.stn_baseline",
        distortion,
        f"--workers={workers}",
        f"--seconds={seconds}",
    ]
    command += [*options, *([f"--data={data}"] if data else [])]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def better_workers(distortion: str, data: str | None, *options: str) -> int:
    """Return the faster number of workers of the DataLoader: none or one a core."""
    return max((0, os.cpu_count() or 1), key=lambda workers: stock(distortion, workers, data, *options, seconds=2.0))


def measure_inputs(data: str | None, rounds: int) -> list[dict[str, Any]]:
    """Measure the input pipeline alone: a row for each distortion."""
    rows, images = [], baseline.load(data)
    for name in ("r", "rts", "p", "e"):
        source = training_digits(images, make_distortion(name), 0, CPU)
        order = EpochOrder(len(images), BATCH, 0)
        steps = itertools.count()
        workers = better_workers(name, data)
        pairs = [
            (baseline.rate(lambda: source.fetch(order.batch(next(steps))), seconds=1.0), stock(name, workers, data))  # noqa: B023
            for _ in range(rounds)
        ]
        rows.append(_row("input", name, "", pairs, workers, ""))
    return rows


def measure_steps(data: str | None, rounds: int, seconds: float, nets: Sequence[str]) -> list[dict[str, Any]]:
    """Measure a whole training step: a row for each net, distortion and precision of the stock net."""
    rows = []
    for net, key, width in (("st-cnn", "filters", 32), ("st-cnn", "filters", 64), ("st-fcn", "units", 256)):
        if net not in nets:
            continue
        steps = round(seconds * EXPECTED[net] / BATCH)
        for distortion in ("r", "rts"):
            workers = better_workers(distortion, data, f"--net={net}", f"--width={width}")
            for precision in ("float32", "bfloat16") if has_bfloat16(CPU) else ("float32",):
                options = (f"--net={net}", f"--width={width}", f"--precision={precision}")
                pairs = [
                    (
                        train(data, [f"model={net}", f"model.{key}={width}", f"distortion={distortion}"], steps),
                        stock(distortion, workers, data, *options),
                    )
                    for _ in range(rounds)
                ]
                rows.append(_row("step", distortion, f"{net}, {key}={width}", pairs, workers, precision))
    return rows


def train(data: str | None, overrides: list[str], steps: int) -> float:
    """Return images a second that the program's own trainer reports for a short run."""
    source = ["data=mnist", f"data.root={data}"] if data else ["data=digits"]
    with tempfile.TemporaryDirectory() as folder:
        composed = compose(
            "stn-mnist",
            [
                *source, *overrides, "device=cpu", f"train.samples={steps * BATCH}", "train.evaluate_every=0",
                "train.log_every=1000", "train.checkpoint_every=100000", "data.max_test_images=256", "evaluation.pictures=0",
                "optim.warmup_steps=1",
            ],
        )  # fmt: skip
        outcome = start(composed.resolved, run_dir=Path(folder) / "run", reporter=SilentReporter())
        assert outcome.results is not None
        return float(outcome.results["metrics"]["train/samples_per_second"])


def _row(
    part: str, distortion: str, net: str, pairs: list[tuple[float, float]], workers: int, precision: str
) -> dict[str, Any]:
    ratios = [ours / theirs for ours, theirs in pairs]
    row = {
        "part": part,
        "distortion": distortion,
        "net": net,
        "ours_per_second": f"{median(ours for ours, _ in pairs):.0f}",
        "dataloader_per_second": f"{median(theirs for _, theirs in pairs):.0f}",
        "ratio": f"{median(ratios):.2f}",
        "ratio_lowest": f"{min(ratios):.2f}",
        "ratio_highest": f"{max(ratios):.2f}",
        "rounds": len(ratios),
        "dataloader_workers": workers,
        "stock_precision": precision,
        "batch": BATCH,
        **machine("cpu"),
    }
    print(*list(row.values())[:11], sep="  ", flush=True)
    return row


# --- transformers inside a net ----------------------------------------------------------------------------------------


def measure_house_numbers(rounds: int, *, batch: int = 16, filters: float = 0.5) -> list[dict[str, Any]]:
    """Measure seconds of forward and backward, and the excess over CNN: a row for each net and size."""
    rows = []
    names = {"CNN": "svhn-cnn", "ST-CNN Single": "svhn-st-single", "ST-CNN Multi": "svhn-st-multi"}
    for side in (64, 128):
        torch.manual_seed(0)
        images, labels = torch.rand(batch, 3, side, side), torch.randint(0, 11, (batch, 5))
        nets = {
            name: HouseNumberNet(HouseNumberModel(name=key, filters=filters), side=side).to(  # type: ignore[arg-type, call-overload]
                memory_format=torch.channels_last
            )
            for name, key in names.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name, net in nets.items():
                began = time.perf_counter()
                _house_number_step(net, images, labels)
                if number:
                    seconds[name].append(time.perf_counter() - began)
        for name in names:
            more = [100 * (a / b - 1) for a, b in zip(seconds[name], seconds["CNN"], strict=True)]
            rows.append(
                {
                    "net": name,
                    "side": side,
                    "batch": batch,
                    "filters": filters,
                    "seconds": f"{median(seconds[name]):.4f}",
                    "more_time_percent": f"{median(more):.1f}",
                    "rounds": rounds,
                    "paper_percent": "6 (Multi, forward and backward)" if name == "ST-CNN Multi" else "",
                    **machine("cpu"),
                }
            )
            print(*list(rows[-1].values())[:7], sep="  ", flush=True)
    return rows


def _house_number_step(net: HouseNumberNet, images: Tensor, labels: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(CPU)):
        logits = net(images)
    sequence_loss(logits.float(), labels).backward()
    net.zero_grad()


def main() -> None:
    """Write `results/stn-speed-cpu.csv` and `results/stn-svhn-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("input", "step", "svhn"))
    parser.add_argument("--data", help="folder that holds MNIST/raw")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round of our trainer, roughly")
    parser.add_argument("--nets", nargs="+", choices=tuple(EXPECTED), default=tuple(EXPECTED), help="of `step`")
    arguments = parser.parse_args()
    keep_freed_memory()
    data = str(Path(arguments.data).absolute()) if arguments.data else None
    rows: list[dict[str, Any]] = []
    if "input" in arguments.parts:
        rows += measure_inputs(data, arguments.rounds)
    if "step" in arguments.parts:
        rows += measure_steps(data, arguments.rounds, arguments.seconds, arguments.nets)
    if rows:
        print(f"written to {write('stn-speed-cpu', [*earlier_rows('stn-speed-cpu', rows, KEYS), *rows])}")
    if "svhn" in arguments.parts:
        print(f"written to {write('stn-svhn-cpu', measure_house_numbers(arguments.rounds))}")


if __name__ == "__main__":
    main()
