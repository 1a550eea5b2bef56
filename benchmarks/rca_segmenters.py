"""How well the quality of real predictions is told without ground truth: JSRT and hippocampus, 8 references, 100 images each.

    uv run python -m benchmarks.rca_segmenters --data DIR
    uv run python -m benchmarks.rca_segmenters --data DIR --sets jsrt

Segmenters learn from 60 radiographs or 24 volumes and segment 130 others: a U-Net at several stages of its training, a random
forest, multi-atlas. 100 of these are judged and 30, whose truth is used, calibrate; 8 more are the references. A line of the CSV is
one organ of one segmenter, or of all of them together. An organ that a segmenter missed has a real score of 0, which is told with
ease: `missed` counts these masks, and `found_pearson_r` and `found_mae` leave them out.

Runs are kept below `--runs` and are not made again: the command may be stopped and repeated.
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

from benchmarks.common import machine_of, write, written_earlier

SETS = ("jsrt", "hippocampus")
SHARES = ["data.references=8", "data.cases=100", "data.calibration=30", "calibration.kind=labelled"]
OWN = {
    "jsrt": ["data.training=60"],
    "hippocampus": [
        "data.training=24",
        "segmenters.unet.epochs=[1,3]",
        "segmenters.unet.batch_size=1",
        "segmenters.multi_atlas.atlases=[1,3]",
    ],
}
"""Volumes take longer: fewer to learn from, fewer passes, fewer atlases."""
COLUMNS = (
    "masks", "real_mean", "predicted_mean", "pearson_r", "mae", "calibrated_mae", "accuracy@0.7", "poor", "failure_auroc",
    "coverage",
)  # fmt: skip
ALL = "all"
KEYS = ("data", "segmenter", "organ", "seed")
"""Columns that tell one line from another: what this call did not make stays."""


def judged(name: str, data: str, runs: Path, seed: int, threads: int) -> Path:
    """The folder of a run, made or found."""
    folder = runs / f"{name}-{seed}"
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "paperbench"]
        if (folder / "config.yaml").exists():
            command += ["resume", str(folder)]
        else:
            command += ["estimate", "rca-segmenters", f"data={name}", f"data.root={data}", *SHARES, *OWN[name]]
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
    """One line an organ, of all segmenters together and of each."""
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
                    for column, value in {**values, **found(own)}.items()
                },
                "references": 8,
                "seed": seed,
                "scale": results["scale"],
                **machine_of(folder),
            }


def found(lines: Sequence[dict[str, str]]) -> dict[str, float | None]:
    """How many masks missed the organ, and correlation and error of the best score over the others."""
    real, best = (np.array([float(line[column]) for line in lines]) for column in ("real", "max"))
    kept = real > 0
    varies = kept.sum() > 2 and np.ptp(real[kept]) > 0 and np.ptp(best[kept]) > 0
    return {
        "missed": int((~kept).sum()),
        "found_pearson_r": float(np.corrcoef(best[kept], real[kept])[0, 1]) if varies else None,
        "found_mae": float(np.abs(best - real)[kept].mean()) if kept.any() else None,
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
        folder = judged(name, str(Path(options.data).absolute()), options.runs, options.seed, options.threads)
        table += rows(name, folder, options.seed)
        write("rca-segmenters-cpu", [*written_earlier("rca-segmenters-cpu", table, KEYS), *table])
    for line in table:
        if line["segmenter"] == ALL:
            shown = ("data", "organ", *COLUMNS, "missed", "found_pearson_r", "found_mae")
            print(*(f"{key} {line[key]}" for key in shown), sep="  ", flush=True)


if __name__ == "__main__":
    main()
