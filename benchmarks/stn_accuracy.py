"""Errors of the digit nets at `scale=short`, over seeds: every cell is a run of the program, with its time.

    uv run python -m benchmarks.stn_accuracy --data DIR                            all cells, three seeds
    uv run python -m benchmarks.stn_accuracy --data DIR --cells rts/st-cnn/affine r/cnn --seeds 0
    uv run python -m benchmarks.stn_accuracy --table                               the CSV as a table over seeds

A cell is DISTORTION/MODEL[/TRANSFORM[/KEY=VALUE]], the last a key of the model. Finished runs below `--runs` are not repeated:
the command continues where it was stopped, and the CSV holds the finished runs of all calls. Each run has the whole machine;
`seconds` are the program's own, from its start to its results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import earlier_rows, machine_of, read, write

DISTORTIONS = ("r", "rts", "p", "e", "tc")
"""The paper's order, which is the table's."""
PLAIN, TRANSFORMED = ("fcn", "cnn"), ("st-fcn", "st-cnn")
TRANSFORMS = ("affine", "projective", "tps")
CELLS = [
    *(f"{distortion}/{model}" for distortion in DISTORTIONS for model in PLAIN),
    *(f"{distortion}/{model}/{kind}" for kind in TRANSFORMS for distortion in DISTORTIONS for model in TRANSFORMED),
    *(f"{distortion}/dcn" for distortion in DISTORTIONS),
    *(f"{distortion}/st-cnn/tps/localisation_lr=1" for distortion in ("r", "rts")),
]
MODELS = ("fcn", "st-fcn", "cnn", "st-cnn", "dcn")
"""Rows of the printed table."""
KEYS = ("distortion", "model", "transform", "settings", "seed")
"""Columns that tell one line from another."""


def parts(cell: str) -> tuple[str, str, str, str]:
    """Split a cell into distortion, model, transform and setting; the last two may be empty."""
    distortion, model, transform, setting, *_ = [*cell.split("/"), "", ""]
    return distortion, model, transform, setting


def folder(runs: Path, cell: str, seed: int) -> Path:
    """Return the folder of a run."""
    return runs / f"{cell.replace('/', '-')}-{seed}"


def run_cell(cell: str, seed: int, data: str, runs: Path, threads: int) -> Path:
    """Train one run unless it is finished, and return its folder."""
    distortion, model, transform, setting = parts(cell)
    directory = folder(runs, cell, seed)
    results = directory / "results.json"
    if not results.exists():
        command = [sys.executable, "-m", "paperbench"]
        if (directory / "config.yaml").exists():
            command += ["resume", str(directory)]
        else:
            overrides = [
                f"distortion={distortion}",
                f"model={model}",
                *([f"transform={transform}"] if transform else []),
            ]
            overrides += [f"model.{setting}"] if setting else []
            command += ["train", "stn-mnist", "data=mnist", f"data.root={data}", *overrides, f"seed={seed}", "device=cpu",
                        f"threads={threads}", "--run-dir", str(directory)]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory


def row(cell: str, seed: int, made: Path) -> dict[str, Any]:
    """Return the row of a finished run, from its folder."""
    results = json.loads((made / "results.json").read_text())
    distortion, model, transform, setting = parts(cell)
    metrics = results["metrics"]
    return {
        "distortion": distortion,
        "model": model,
        "transform": transform,
        "settings": setting,
        "seed": seed,
        "error_percent": f"{metrics['test/error']:.2f}",
        "weights": int(metrics["model/parameters"]),
        "seconds": f"{results['seconds']:.0f}",
        "training_images_per_second": f"{metrics['train/samples_per_second']:.0f}",
        "precision": results["precision"],
        "scale": results["scale"],
        **machine_of(made),
    }


def finished(runs: Path, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Return the rows of all finished runs below `runs`, of this call or an earlier one."""
    found = ((cell, seed, folder(runs, cell, seed)) for seed in sorted(seeds) for cell in CELLS)
    return [row(cell, seed, made) for cell, seed, made in found if (made / "results.json").exists()]


def place(row: dict[str, Any]) -> tuple[int, int]:
    """Return the sort key of a row: by seed, then in the order of the cells."""
    cell = "/".join(row[key] for key in KEYS[:-1] if row[key])
    return int(row["seed"]), CELLS.index(cell) if cell in CELLS else len(CELLS)


def table(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return lines of Markdown, one for each net: for every distortion the mean error of the seeds in percent, and its range."""
    errors: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: (MODELS.index(row["model"]), row["transform"], row["settings"])):
        net = f"{row['model']} {row['transform']}".strip() + (f", `model.{row['settings']}`" if row["settings"] else "")
        errors.setdefault(net, {}).setdefault(row["distortion"], []).append(float(row["error_percent"]))
        seconds.setdefault(net, []).append(int(row["seconds"]))
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in DISTORTIONS)} | seconds a run |",
        f"|{'---|' * (len(DISTORTIONS) + 2)}",
    ]
    for net, found in errors.items():
        cells = [
            f"{mean(e):.2f} ({min(e):.2f} to {max(e):.2f})" if (e := found.get(name)) else "" for name in DISTORTIONS
        ]
        lines.append(f"| {net} | {' | '.join(cells)} | {min(seconds[net])} to {max(seconds[net])} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `results/stn-accuracy-cpu.csv` after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--data", help="folder that holds MNIST/raw")
    asked.add_argument("--table", action="store_true", help="print the CSV as a table over seeds, and make no run")
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("outputs/benchmark-stn"))
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice: all cores")
    options = parser.parse_args(arguments)
    if options.table:
        print(*table(read("stn-accuracy-cpu")), sep="\n")
        return
    data = str(Path(options.data).absolute())
    for seed in options.seeds:
        for cell in options.cells:
            made = row(cell, seed, run_cell(cell, seed, data, options.runs, options.threads))
            print(*list(made.values())[:7], sep="  ", flush=True)
            rows = finished(options.runs, {*options.seeds, 0, 1, 2})
            write("stn-accuracy-cpu", sorted([*earlier_rows("stn-accuracy-cpu", rows, KEYS), *rows], key=place))


if __name__ == "__main__":
    main()
