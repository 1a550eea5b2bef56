"""Accuracy of predicted quality of real segmentations: JSRT and hippocampus, 8 references, 100 images each.

    uv run python -m benchmarks.rca_segmenters --data DIR
    uv run python -m benchmarks.rca_segmenters --data DIR --sets jsrt

Segmenters learn from 60 radiographs or 24 volumes and segment 130 others: a U-Net at several stages of its training, a random
forest, multi-atlas. 100 of these are cases and 30, whose truth is used, are for calibration; 8 more are the references. A line of
the CSV is one organ of one segmenter, or of all of them together. An organ that a segmenter missed has a true score of 0, which is
easy to predict: `missed` counts these masks, and `found_pearson_r` and `found_mae` leave them out.

Runs stay below `--runs` and are not repeated: the command may be stopped and started again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import earlier_rows, machine_of, write

SETS = ("jsrt", "hippocampus")
SPLITS = ["data.references=8", "data.cases=100", "data.calibration=30", "calibration.kind=labelled"]
OWN = {
    "jsrt": ["data.training=60"],
    "hippocampus": [
        "data.training=24",
        "segmenters.unet.epochs=[1,3]",
        "segmenters.unet.batch_size=1",
        "segmenters.multi_atlas.atlases=[1,3]",
    ],
}
"""Volumes take longer: fewer training images, epochs and atlases."""
COLUMNS = (
    "masks", "real_mean", "predicted_mean", "pearson_r", "mae", "calibrated_mae", "accuracy@0.7", "poor", "failure_auroc",
    "coverage",
)  # fmt: skip
ALL = "all"
KEYS = ("data", "segmenter", "organ", "seed")
"""Columns that identify a line: lines of other calls stay."""


def run_of(name: str, data: str, runs: Path, seed: int, threads: int) -> Path:
    """Return the folder of a run, which is made if it is missing."""
    folder = runs / f"{name}-{seed}"
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "paperbench"]
        if (folder / "config.yaml").exists():
            command += ["resume", str(folder)]
        else:
            command += ["estimate", "rca-segmenters", f"data={name}", f"data.root={data}", *SPLITS, *OWN[name]]
            command += [
                f"seed={seed}",
                "device=cpu",
                f"threads={threads}",
                f"output.root={runs}",
                "--run-dir",
                str(folder),
            ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def rows(name: str, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Yield one line for each organ, of all segmenters together and of each."""
    results = json.loads((folder / "results.json").read_text())
    metrics = results["metrics"]
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        cases = [line for line in csv.DictReader(file) if line["real"] and line["max"]]
    organs, segmenters = (list(dict.fromkeys(line[column] for line in cases)) for column in ("label", "segmenter"))
    for segmenter in (ALL, *segmenters):
        for organ in organs:
            group = organ if segmenter == ALL else f"by/{segmenter}/{organ}"
            values = {column: metrics.get(f"rca/{group}/{column}") for column in COLUMNS}
            own = [line for line in cases if line["label"] == organ and segmenter in (ALL, line["segmenter"])]
            yield {
                "data": name,
                "segmenter": segmenter,
                "organ": organ,
                **{
                    column: "" if value is None else f"{value:.4g}"
                    for column, value in {**values, **over_found(own)}.items()
                },
                "references": 8,
                "seed": seed,
                "scale": results["scale"],
                **machine_of(folder),
            }


def over_found(lines: Sequence[dict[str, str]]) -> dict[str, float | None]:
    """Return the number of masks that missed the organ, and correlation and error of the best score over the others."""
    real, best = (np.array([float(line[column]) for line in lines]) for column in ("real", "max"))
    found = real > 0
    varies = found.sum() > 2 and np.ptp(real[found]) > 0 and np.ptp(best[found]) > 0
    return {
        "missed": int((~found).sum()),
        "found_pearson_r": float(np.corrcoef(best[found], real[found])[0, 1]) if varies else None,
        "found_mae": float(np.abs(best - real)[found].mean()) if found.any() else None,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes `results/rca-segmenters-cpu.csv` after every set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds JSRT and Task04_Hippocampus")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("outputs/benchmark-rca-segmenters"))
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice: all cores")
    options = parser.parse_args(arguments)
    table: list[dict[str, Any]] = []
    for name in options.sets:
        folder = run_of(name, str(Path(options.data).absolute()), options.runs, options.seed, options.threads)
        table += rows(name, folder, options.seed)
        write("rca-segmenters-cpu", [*earlier_rows("rca-segmenters-cpu", table, KEYS), *table])
    for line in table:
        if line["segmenter"] == ALL:
            shown = ("data", "organ", *COLUMNS, "missed", "found_pearson_r", "found_mae")
            print(*(f"{key} {line[key]}" for key in shown), sep="  ", flush=True)


if __name__ == "__main__":
    main()
