"""Run directories as runs leave them, made without running anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT: dict[str, Any] = {
    "device": "cpu",
    "cpu": "Made-up 9000",
    "threads": 2,
    "processes": 1,
    "python": "3.11.7",
    "paperbench": "0.1.0",
    "host": "here",
    "packages": {"torch": "2.15.0", "numpy": "2.0.0"},
    "git": {"commit": "0123456789abcdef", "diff": ""},
}


def record(
    folder: Path,
    metrics: Mapping[str, float] | None = None,
    *,
    state: str = "done",
    data: str = "made-up points",
    environment: Mapping[str, Any] | None = None,
    seconds: float = 10.0,
    updated: str = "2024-05-01T10:00:00+00:00",
    **config: Any,
) -> Path:
    """A run of an experiment `toy` with `config` over a small configuration; results only if it is `done`."""
    folder.mkdir(parents=True)
    resolved = {
        "experiment": "toy",
        "task": "toy",
        "scale": "short",
        "seed": 0,
        "output": {"root": str(folder.parent)},
        "optim": {"name": "sgd", "lr": 0.1},
        "data": {"name": "points", "classes": ["a", "b"]},
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved), encoding="utf-8")
    status = {"state": state, "step": 4, "steps": 8, "best": None, "updated": updated, "seconds": seconds}
    _write(folder / "status.json", status)
    _write(folder / "env.json", {**ENVIRONMENT, **(environment or {})})
    if state == "done":
        results = {"metrics": dict(metrics or {}), "data": data, "seconds": seconds, "precision": "float32"}
        _write(folder / "results.json", results)
    return folder


def record_sweep(folder: Path, directories: Sequence[Path], experiment: str = "toy") -> Path:
    """The record of a sweep over these runs, whether they exist or not."""
    folder.mkdir(parents=True)
    runs = [
        {
            "directory": os.path.relpath(path, folder),
            "hash": f"{number:064x}",
            "experiment": experiment,
            "overrides": [f"seed={number}"],
            "labels": {"seed": str(number)},
        }
        for number, path in enumerate(directories)
    ]
    document = {"schema_version": 1, "kind": "sweep", "name": folder.name, "id": folder.name, "experiment": experiment}
    _write(folder / "sweep.json", {**document, "overrides": [f"seed=0..{len(runs)}"], "runs": runs})
    return folder


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
