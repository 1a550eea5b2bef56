"""What every benchmark shares: the machine it ran on, and a CSV that says so."""

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
    """Processor or GPU, cores, threads, versions and the day: the columns every row carries."""
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
    """The columns of `machine`, for a run on the CPU that was made earlier, perhaps from another commit: from its env.json."""
    made = json.loads((run / "env.json").read_text(encoding="utf-8"))
    return {
        "machine": f"{made['cpu']}, {made['cores']} cores",
        "threads": str(made["threads"]),
        "torch": made["packages"]["torch"],
        "torchvision": made["packages"]["torchvision"],
        "commit": made["git"]["commit"][:7] if made["git"] else "none",
        "date": made["started"][:10],
    }


def write(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Replaces `results/<name>.csv` by `rows`, all with the same keys."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(name: str) -> list[dict[str, str]]:
    """The lines of `results/<name>.csv`; none if nobody has measured it yet."""
    file = RESULTS / f"{name}.csv"
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def written_earlier(name: str, rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of `results/<name>.csv` that none of `rows` replaces, by the columns `keys`: parts may be measured one at a time.
    A column that lines of an earlier day lack is empty in them."""
    if not rows:
        return []
    replaced = {tuple(str(row[key]) for key in keys) for row in rows}
    earlier = [{column: line.get(column) or "" for column in rows[0]} for line in read(name)]
    return [line for line in earlier if tuple(line[key] for key in keys) not in replaced]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return min(values), median(values), max(values)
