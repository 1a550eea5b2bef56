"""The launches and waits of a training step of each experiment, on a pretended CUDA device, as CSV.

    python -m tests.device.launches [EXPERIMENT OVERRIDE…] …  > benchmarks/results/launches.csv

Each argument is an experiment with its overrides, in quotes; without any, those of `test_cuda.WAITS`. The numbers are of the last
step of a run with `--smoke`: kernels of forward, backward and optimizer, and those that make a batch, the mean over the run.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.common import machine

from tests.device import guard
from tests.device.conftest import Rehearsals
from tests.device.test_cuda import WAITS

_KEPT = ("torch", "commit", "date")
"""Columns of `benchmarks.common.machine`: the numbers are the same on every machine."""
COLUMNS = ("experiment", "step", "input", "waits", *_KEPT)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        guard.build(library)
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(COLUMNS)
        known = machine("cpu")
        with closing(Rehearsals("cuda", library, Path(folder))) as rehearsals:
            for number, words in enumerate(sys.argv[1:] or WAITS):
                run = rehearsals.run(str(number), "train", *words.split(), "--smoke")
                if run["code"] != 0:
                    raise SystemExit(f"{words}: {run['error'] or run['log'][-2000:]}")
                steps = run["step_launches"]
                made = run["launches"].get("fetch", 0) / len(steps)
                table.writerow(
                    [
                        words,
                        steps[-1],
                        round(made),
                        statistics.median(run["step_waits"]),
                        *(known[key] for key in _KEPT),
                    ]
                )


if __name__ == "__main__":
    main()
