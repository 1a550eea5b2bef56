"""What the paper on auto-encoding variational Bayes leaves open, and how far it moves figure 2 at its first printed point.

    uv run python -m benchmarks.vae_choices --data-root DIR                      # -> results/vae-rates.csv, vae-choices-1M.csv
    uv run python -m benchmarks.vae_choices --data-root DIR --parts seeds --latents 20

| part | file | runs |
|---|---|---|
| rates | vae-rates.csv | the search alone, for every curve: 20,000 and 60,000 samples, and the other reading of N(0, 0.01) |
| readings | vae-choices-1M.csv | 1e6 samples with N(0, 0.01) as a variance and as a standard deviation |
| seeds | vae-choices-1M.csv | 1e6 samples with seeds 0, 1 and 2 |

Everything is at scale=paper, made by `paperbench sweep`, and an interrupted call continues when it is repeated. Rows of other parts
stay in the file. `--data`, `--latents` and `--estimators` restrict the curves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import earlier_rows, machine_of, write
from paperbench.engine.rundir import RunDirectory
from paperbench.report import published

CURVES = {"mnist": (3, 5, 10, 20, 200), "frey": (2, 5, 10, 20)}
"""Latent sizes of figure 2."""

FILES = {"rates": "vae-rates", "readings": "vae-choices-1M", "seeds": "vae-choices-1M"}
GRIDS = {
    "rates": (
        ("model.init_std=0.1", "rate_search.samples=20000,60000", "train.samples=100"),
        ("model.init_std=0.01", "rate_search.samples=20000", "train.samples=100"),
    ),
    "readings": (("model.init_std=0.1,0.01", "train.samples=1000000"),),
    "seeds": (("seed=0,1,2", "train.samples=1000000"),),
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run: its configuration, its metrics and its folder."""

    config: dict[str, Any]
    metrics: dict[str, float]
    precision: str
    folder: Path


def finished_runs(part: str, data: str, args: argparse.Namespace) -> Iterator[FinishedRun]:
    """Run the sweeps of a part on a data set, or read them where they are finished."""
    latents = [size for size in CURVES[data] if not args.latents or size in args.latents]
    for grid in GRIDS[part] if latents else ():
        command = [
            *(sys.executable, "-m", "paperbench", "sweep", "vae", "scale=paper", f"data={data}", *grid),
            *(f"data.root={args.data_root.absolute()}", f"output.root={args.output}", f"threads={args.threads}", "--json"),
            *(f"model.latent={','.join(map(str, latents))}", f"estimator={','.join(args.estimators)}"),
            *("evaluation.at_samples=[]", "evaluation.importance_samples=0", "evaluation.pictures=false"),
        ]  # fmt: skip
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        for run in found["runs"]:
            folder = Path(run["directory"])
            results = run["results"]
            yield FinishedRun(
                config=RunDirectory.open(folder).config(),
                metrics=results["metrics"],
                precision=results["precision"],
                folder=folder,
            )


def row_of(part: str, run: FinishedRun) -> Row:
    """Return what a run shows: the search, and beyond it the bounds with the published ones."""
    config, metrics = run.config, run.metrics
    data, latent, estimator = config["data"]["name"], config["model"]["latent"], config["estimator"]
    row: Row = {
        "part": part,
        "data": data,
        "estimator": estimator,
        "latent": latent,
        "init_std": config["model"]["init_std"],
        "seed": config["seed"],
        "search_samples": config["rate_search"]["samples"],
        "rate": metrics["rates/chosen"],
    }
    for rate in config["rate_search"]["rates"]:
        value = metrics.get(f"rates/{rate}/train/bound")
        row[f"train_bound_{rate}"] = "not finite" if value is None else f"{value:.6g}"
    if part != "rates":
        name = (
            f"{'MNIST' if data == 'mnist' else 'Frey'}, {latent} latent, {'AEVB' if estimator == 'aevb' else estimator}"
        )
        for split in ("test", "train"):
            row[f"{split}_bound"] = f"{metrics[f'{split}/bound']:.2f}"
            row[f"published_{split}"] = f"{published.find('vae', 'Figure 2', f'{name}, {split}', 1e6).value:.1f}"
    return {**row, "precision": run.precision, **machine_of(run.folder)}


def main() -> None:
    """Write the files of the wanted parts after every sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds MNIST/raw and frey")
    parser.add_argument("--parts", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--data", nargs="+", default=list(CURVES), choices=list(CURVES))
    parser.add_argument("--latents", nargs="+", type=int, default=[])
    parser.add_argument("--estimators", nargs="+", default=["aevb", "wake-sleep"], choices=["aevb", "wake-sleep"])
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    keys = ("part", "data", "estimator", "latent", "init_std", "seed", "search_samples")
    for part in args.parts:
        for data in args.data:
            rows = sorted_rows([row_of(part, run) for run in finished_runs(part, data, args)], keys)
            if rows:
                print(
                    write(FILES[part], sorted_rows([*earlier_rows(FILES[part], rows, keys), *rows], keys)), part, data
                )


def sorted_rows(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Return the rows in the order of their part, data and settings; the text of an earlier file counts as its number."""

    def place(row: Row) -> tuple[Any, ...]:
        return tuple(
            float(row[key]) if key in ("latent", "init_std", "seed", "search_samples") else row[key] for key in keys
        )

    return sorted(rows, key=place)


if __name__ == "__main__":
    main()
