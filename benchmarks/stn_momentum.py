"""Momentum of the digit nets at the paper's schedule, which the paper does not state, by training images held back.

    uv run python -m benchmarks.stn_momentum --data DIR                       all cells, two seeds
    uv run python -m benchmarks.stn_momentum --data DIR --cells r/fcn/0.9 --seeds 0
    uv run python -m benchmarks.stn_momentum --table                          the CSV as a table over seeds

The nets of `scale=paper` are trained on the first 50,000 images of MNIST's training set and scored on the last 10,000, distorted
alike; neither the test set nor a published number takes part. The schedule is the paper's in a tenth of its steps at ten times its
rate: of plain SGD, the product of the two decides. A cell is DISTORTION/MODEL/MOMENTUM[/KEY=VALUE ...], with keys of the
configuration. Finished runs below `--runs` are not repeated, and the CSV keeps the rows of earlier calls.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import earlier_rows, machine_of, read, write
from paperbench.config.compose import compose
from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import TrainingError
from paperbench.report.layout import merged

NAME = "stn-momentum-cpu"
DISTORTIONS, MODELS, MOMENTA = ("r", "e", "rts"), ("fcn", "st-fcn"), ("0.0", "0.9")
CELLS = [f"{distortion}/{model}/{momentum}" for model in MODELS for distortion in DISTORTIONS for momentum in MOMENTA]
KEYS = ("distortion", "model", "momentum", "settings", "shorter", "seed")
"""Columns that tell one line from another."""
HELD_BACK = 10_000
SAMPLES, RATE = 38_400_000, 0.01
"""Of the paper's schedule."""


def overrides(cell: str, shorter: int, seed: int, data: str) -> list[str]:
    """Return what a cell sets, its schedule `shorter` times as short at as many times the rate."""
    distortion, model, momentum, *settings = cell.split("/")
    own = [
        *("scale=paper", "data=mnist", f"data.root={data}", "device=cpu", "threads=1", f"seed={seed}"),
        f"distortion={distortion}",
        f"model={model}",
        f"optim.momentum={momentum}",
        f"optim.lr={RATE * shorter:g}",
        f"train.samples={SAMPLES // shorter}",
        "train.evaluate_every=0",
        f"validation.images={HELD_BACK}",
    ]
    return list(merged(own, settings))


def folder(runs: Path, cell: str, shorter: int, seed: int) -> Path:
    """Return the folder of a run."""
    return runs / f"{cell.replace('/', '-')}-{shorter}-{seed}"


def train(cell: str, shorter: int, seed: int, data: str, runs: Path) -> Path:
    """Train one run unless it is finished, and return its folder. A run that failed, as by a loss that is not finite, stays so."""
    directory = folder(runs, cell, shorter, seed)
    if (directory / "results.json").exists():
        return directory
    try:
        if (directory / "config.yaml").exists():
            launch.resume(directory, SilentReporter())
        else:
            resolved = compose("stn-mnist", overrides(cell, shorter, seed, data)).resolved
            launch.start(resolved, run_dir=directory, reporter=SilentReporter())
    except TrainingError as error:
        print(f"{cell}: {error}", file=sys.stderr)
    return directory


def row(cell: str, shorter: int, seed: int, made: Path) -> dict[str, Any]:
    """Return the row of a run that has ended, from its folder; one that failed has no error and no seconds."""
    file = made / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    distortion, model, momentum, *settings = cell.split("/")
    return {
        "distortion": distortion,
        "model": model,
        "momentum": momentum,
        "settings": " ".join(settings),
        "shorter": shorter,
        "seed": seed,
        "validation_error_percent": f"{results['metrics']['validation/error']:.2f}" if results else "failed",
        "weights": int(results["metrics"]["model/parameters"]) if results else "",
        "seconds": f"{results['seconds']:.0f}" if results else "",
        "precision": results["precision"] if results else "",
        **machine_of(made),
    }


def table(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return lines of Markdown: the mean error of the seeds in percent for each momentum, and the single ones."""
    cells: dict[tuple[str, str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        key = (row["model"], row["distortion"], row["shorter"], row["settings"])
        cells.setdefault(key, {}).setdefault(row["momentum"], []).append(row["validation_error_percent"])
    lines = [f"| | steps | {' | '.join(f'momentum {value}' for value in MOMENTA)} |", "|---|---|---|---|"]
    for (model, distortion, shorter, settings), errors in cells.items():
        name = f"{model}, `{distortion}`" + (f", `{settings}`" if settings else "")
        shown = [_errors(errors.get(value, [])) for value in MOMENTA]
        lines.append(f"| {name} | 1/{shorter} | {' | '.join(shown)} |")
    return lines


def _errors(found: Sequence[str]) -> str:
    if not found or "failed" in found:
        return ", ".join(found)
    return f"{mean(map(float, found)):.2f} ({', '.join(found)})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `results/stn-momentum-cpu.csv` after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--data", help="folder that holds MNIST/raw")
    asked.add_argument("--table", action="store_true", help="print the CSV as a table over seeds, and make no run")
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--shorter", type=int, default=10, help="times that the schedule is shorter, and its rate higher"
    )
    parser.add_argument("--runs", type=Path, default=Path("outputs/benchmark-stn-momentum"))
    options = parser.parse_args(arguments)
    if options.table:
        print(*table(read(NAME)), sep="\n")
        return
    data = str(Path(options.data).absolute())
    for seed in options.seeds:
        for cell in options.cells:
            made = row(cell, options.shorter, seed, train(cell, options.shorter, seed, data, options.runs))
            print(*list(made.values())[:9], sep="  ", flush=True)
            write(NAME, [*earlier_rows(NAME, [made], KEYS), made])


if __name__ == "__main__":
    main()
