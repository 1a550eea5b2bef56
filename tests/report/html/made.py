"""Runs, sweeps and reproductions on disk, written by the program's own writers but without running anything."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paperbench.catalog import MetricSpec
from paperbench.engine.metriclog import JsonLines
from paperbench.engine.rundir import DONE, RunDirectory
from paperbench.records.metrics import MetricRegistry
from paperbench.report.reproduction_document import SCHEMA_VERSION

METRICS = MetricRegistry(
    (
        MetricSpec(name="toy/score", meaning="score", unit="%", format=".1f", headline=True),
        MetricSpec(name="toy/error", meaning="error", unit="%", direction="lower", format=".2f", headline=True),
        MetricSpec(name="seconds_per_image", meaning="time", unit="s", direction="lower", format=".4f", headline=True),
        MetricSpec(name="train/loss*", meaning="loss", direction="lower"),
    )
)
HOSTILE = '<script>window.stolen = 1</script>"\'><img src=x onerror="window.stolen = 1">'


def config(*, seed: int = 0, lr: float = 0.1, **more: Any) -> dict[str, Any]:
    return {
        "experiment": "toy",
        "task": "toy-train",
        "scale": "short",
        "seed": seed,
        "output": {"root": "outputs"},
        "optim": {"name": "sgd", "lr": lr},
        "model": {"name": "net", "sizes": [3, 5]},
        **more,
    }


def metrics(seed: int = 0, lr: float = 0.1) -> dict[str, float]:
    """Numbers with many digits, tiny and huge ones, whole ones and negative ones, some of them by class."""
    base = 70 + 10 * math.sin(seed + 10 * lr)
    return {
        "toy/score": base,
        "toy/error": 100 - base,
        "toy/AP/cat": base / 3,
        "toy/AP/dog": base / 7,
        "seconds_per_image": 0.00123456789 * (seed + 1),
        "train/loss": 1 / (3 + seed),
        "toy/tiny": -1.23456789e-9,
        "toy/huge": 123456789.125,
        "toy/count": 1234,
        "toy/none": math.nan,
    }


def run(
    directory: Path,
    *,
    resolved: Mapping[str, Any] | None = None,
    state: str = DONE,
    values: Mapping[str, float] | None = None,
    steps: int = 40,
    logged: int | None = None,
    pictures: Iterable[tuple[str, int]] = (),
    message: str = "",
    data: str = "made-up points, 30 train, 10 test",
    hostile: bool = False,
) -> Path:
    """One run. `logged` of `steps` steps are in its record; `pictures` are (name, side in pixels)."""
    resolved = dict(resolved or config())
    seed, lr = int(resolved["seed"]), float(resolved["optim"]["lr"])
    made = RunDirectory.create(directory.parent, "toy", resolved, directory)
    made.update_status(state=state, step=steps if logged is None else logged, steps=steps, message=message)
    made.write_environment(environment(hostile=hostile))
    log(made.metrics_file, seed=seed, lr=lr, steps=steps if logged is None else logged)
    made.write_log(f"said while it ran\n{message}")
    _manifest(made.checkpoints, steps, seed)
    for name, side in pictures:
        picture(made.figures / name, side, seed=seed)
    if state == DONE:
        found = metrics(seed, lr) if values is None else values
        made.write_results(config=resolved, metrics=found, data=data, device="cpu", precision="float32")
    made.release()
    return directory


def log(path: Path, *, seed: int, lr: float, steps: int) -> None:
    """A loss that falls over two decades, a score that rises and is evaluated every tenth step, a rate."""
    noise = np.random.default_rng(seed)
    sink = JsonLines(path)
    for step in range(1, steps + 1):
        loss = 3.0 * math.exp(-5 * step / 40) * (1 + 0.1 * noise.standard_normal()) + 0.01 * lr
        sink.write(
            step, {"train/loss": loss, "train/loss_box": loss / 4, "train/loss_class": loss / 2, "train/lr": lr / step}
        )
        if step % 10 == 0:
            sink.write(
                step, {"toy/score": 70 * (1 - math.exp(-step / 10)) + seed, "toy/AP/cat": 30.0, "toy/AP/dog": 20.0}
            )
    sink.close()


def environment(*, hostile: bool = False) -> dict[str, Any]:
    return {
        "started": "2026-01-02T03:04:05+00:00",
        "paperbench": "0.1.0",
        "python": "3.11.7",
        "packages": {"torch": "2.15.0", "numpy": "2.4.6"},
        "platform": "Linux",
        "host": HOSTILE if hostile else "machine",
        "cpu": "a processor",
        "cores": 2,
        "threads": 2,
        "processes": 1,
        "device": "cpu",
        "argv": ["paperbench", "train", HOSTILE if hostile else "toy"],
        "git": {"commit": "0123456789abcdef", "diff": f"+{HOSTILE}\n" if hostile else "+a line\n"},
    }


def picture(path: Path, side: int, *, seed: int = 0) -> Path:
    """Noise, which compresses badly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _manifest(folder: Path, steps: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256(str(seed).encode()).hexdigest()
    files = {"last.pt": [{"sha256": sha256, "step": steps, "bytes": 12345678}]}
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": files}), encoding="utf-8")


def sweep(root: Path, settings: Sequence[Mapping[str, Any]], *, name: str = "toy", **arguments: Any) -> Path:
    """The record of a sweep over `settings` (keyword arguments of `config`), each of which is run once; returns its folder."""
    runs = []
    folder = root / "toy" / "sweeps" / "0123"
    folder.mkdir(parents=True)
    for given in settings:
        resolved = config(**given)
        directory = root / "toy" / hashlib.sha256(json.dumps(resolved).encode()).hexdigest()[:12]
        run(directory, resolved=resolved, **arguments)
        labels = {("optim.lr" if key == "lr" else key): str(value) for key, value in given.items()}
        runs.append(entry(folder, directory, labels))
    record(folder, runs, name=name)
    return folder


def entry(folder: Path, directory: Path, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "directory": os.path.relpath(directory, folder),
        "hash": directory.name,
        "experiment": "toy",
        "overrides": [],
        "labels": dict(labels),
    }


def record(folder: Path, runs: Sequence[Mapping[str, Any]], *, name: str = "toy") -> None:
    document = {
        "schema_version": 1,
        "kind": "sweep",
        "name": name,
        "experiment": "toy",
        "overrides": ["optim.lr=0.1,0.2", "seed=0,1"],
        "runs": list(runs),
    }
    (folder / "sweep.json").write_text(json.dumps(document), encoding="utf-8")


def cell(
    values: Sequence[float],
    published: float | None,
    *,
    verdict: str = "within tolerance",
    departs: str = "",
    remarks: Sequence[str] = (),
    unit: str = "percent",
) -> dict[str, Any]:
    mean = sum(values) / len(values) if values else None
    printed = {
        "value": published,
        "unit": unit,
        "direction": "higher",
        "tolerance": 1.5,
        "sample": "3 seeds",
        "row": "",
        "column": "",
    }
    return {
        "published": None if published is None else printed,
        "metric": "toy/score",
        "values": [{"seed": seed, "value": value, "run": f"runs/{seed}"} for seed, value in enumerate(values)],
        "n": len(values),
        "mean": mean,
        "interval": [min(values), max(values)] if len(values) > 1 else None,
        "interval_kind": "range" if len(values) > 1 else "one seed" if values else "none",
        "difference": mean - published if mean is not None and published is not None and not departs else None,
        "verdict": verdict,
        "departs": departs,
        "remarks": list(remarks),
    }


def reproduction(folder: Path, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]], **more: Any) -> Path:
    """A `reproduction.json` of these cells; returns its folder."""
    folder.mkdir(parents=True)
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "reproduction",
        "name": "toy-paper/table-1",
        "paper": "toy-paper",
        "table": "Table 1",
        "caption": "Scores of toys",
        "source": "Somebody: Toys, 2016",
        "scale": "paper",
        "seeds": 3,
        "overrides": [],
        "columns": list(columns),
        "rows": [{"row": row, "kind": "runs", "cells": dict(cells)} for row, cells in rows.items()],
        "remarks": ["paper: Somebody: Toys, 2016"],
        "is_reproduction": True,
        **more,
    }
    (folder / "reproduction.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
