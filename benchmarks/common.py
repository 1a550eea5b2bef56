"""Shared by all benchmarks: the description of the machine, and CSV files whose rows carry it."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision

RESULTS = Path(__file__).parent / "results"


def machine(device: str) -> dict[str, str]:
    """Return processor or GPU, cores, threads, versions and the day: the columns of every row."""
    processor = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    if device.startswith("cuda"):
        processor = torch.cuda.get_device_name()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "machine": f"{processor}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "commit": commit.stdout.strip() or "none",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def machine_of(run: Path) -> dict[str, str]:
    """Return the columns of `machine` for an earlier run on the CPU, perhaps of another commit, from its env.json."""
    environment = json.loads((run / "env.json").read_text(encoding="utf-8"))
    return {
        "machine": f"{environment['cpu']}, {environment['cores']} cores",
        "threads": str(environment["threads"]),
        "torch": environment["packages"]["torch"],
        "torchvision": environment["packages"]["torchvision"],
        "commit": environment["git"]["commit"][:7] if environment["git"] else "none",
        "date": environment["started"][:10],
    }


def write(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Replace `results/<name>.csv` by `rows`, all with the same keys."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(name: str) -> list[dict[str, str]]:
    """Return the lines of `results/<name>.csv`; none if there is no such file."""
    file = RESULTS / f"{name}.csv"
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def earlier_rows(name: str, rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines of `results/<name>.csv` that none of `rows` replaces, by the columns `keys`, so that parts can be measured
    one at a time. A column that is missing in earlier lines is empty there.
    """
    if not rows:
        return []
    replaced = {tuple(str(row[key]) for key in keys) for row in rows}
    earlier = [{column: line.get(column) or "" for column in rows[0]} for line in read(name)]
    return [line for line in earlier if tuple(line[key] for key in keys) not in replaced]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return min(values), median(values), max(values)
