"""COCO's twelve numbers from two files: `paperbench eval detections format=coco` beside faster-coco-eval and pycocotools.

    uv run --group bench python -m benchmarks.coco_scoring [--rounds N] [--images N]

A set of 5,000 images as large as COCO's val2017 with what a detector finds in it is made from a seed: 36,499 objects of 80 classes,
446,203 detections. Each program is a process of its own, started, read and ended in turns, so that everything a user waits for
counts; pycocotools once. `cpu` is the processor time of a process, which other work on the machine changes less. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import machine, spread, write

CLASSES = 80
_PEER = """
import sys
{imports}
truth = COCO({truth!r})
evaluation = Evaluation(truth, truth.loadRes({results!r}), "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
print("AP", float(evaluation.stats[0]))
"""
PEERS = {
    "faster-coco-eval": "from faster_coco_eval import COCO, COCOeval_faster as Evaluation",
    "pycocotools": "from pycocotools.coco import COCO\nfrom pycocotools.cocoeval import COCOeval as Evaluation",
}


def make(folder: Path, images: int) -> tuple[Path, Path]:
    """Write annotations and detections: four moved boxes an object on average, and sixty strays an image."""
    rng = np.random.default_rng(0)
    annotations, found = [], []
    for image in range(1, images + 1):
        for _ in range(rng.poisson(7.3)):
            width, height = np.exp(rng.uniform(np.log(12), np.log(300), 2))
            box = np.array([rng.uniform(0, 640 - width), rng.uniform(0, 480 - height), width, height])
            label = int(rng.integers(1, CLASSES + 1))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box.round(2).tolist(),
                 "area": round(float(width * height), 2), "iscrowd": 0}
            )  # fmt: skip
            for _ in range(rng.poisson(4)):
                moved = box + rng.normal(0, 0.1, 4) * [width, height, width, height]
                found.append((image, label, np.maximum(moved, [-np.inf, -np.inf, 2, 2]), rng.beta(2, 2)))
        for _ in range(60):
            sides = np.exp(rng.uniform(np.log(12), np.log(300), 2))
            box = np.concatenate([rng.uniform(0, [600, 400]), sides])
            found.append((image, int(rng.integers(1, CLASSES + 1)), box, rng.beta(1, 5)))
    truth, results = folder / "instances.json", folder / "results.json"
    listed = [{"id": image, "width": 640, "height": 480} for image in range(1, images + 1)]
    categories = [{"id": label, "name": f"class {label}"} for label in range(1, CLASSES + 1)]
    truth.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    entries = [
        {"image_id": image, "category_id": label, "bbox": box.round(2).tolist(), "score": round(float(score), 4)}
        for image, label, box, score in found
    ]
    results.write_text(json.dumps(entries))
    print(f"{len(annotations):,} objects, {len(entries):,} detections", flush=True)
    return truth, results


def timed(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds that a command takes, its processor time, and the AP it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.findall(r"^AP (\S+)$", done.stdout, re.MULTILINE) or re.findall(r'"coco/AP": ([0-9.]+)', done.stdout)
    ap = float(found[0])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, spent, ap if ap > 1 else 100 * ap


def main() -> None:
    """Writes `results/coco_scoring-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, results = make(folder, arguments.images)
        own = [sys.executable, "-m", "paperbench", "eval", "detections", "format=coco", f"gt={truth}", f"dt={results}"]
        commands = {"paperbench": [*own, "--json"]} | {
            peer: [sys.executable, "-c", _PEER.format(imports=imports, truth=str(truth), results=str(results))]
            for peer, imports in PEERS.items()
        }
        times: dict[str, list[tuple[float, float, float]]] = {program: [] for program in commands}
        for number in range(arguments.rounds):
            for program, command in commands.items():
                if program == "pycocotools" and number:
                    continue
                times[program].append(timed(command, folder))
                wall, spent, ap = times[program][-1]
                print(f"{program:18} {wall:6.1f} s, {spent:6.1f} s of processor time, AP {ap:.6f}", flush=True)
    assert len({round(ap, 6) for each in times.values() for *_, ap in each}) == 1, "the programs disagree"
    rows = []
    for program, each in times.items():
        walls, spent = spread([wall for wall, _, _ in each]), spread([cpu for _, cpu, _ in each])
        of_peer = spread([cpu for _, cpu, _ in times["faster-coco-eval"]])
        rows.append(
            {
                "program": program,
                "images": arguments.images,
                "seconds": round(walls[1], 2),
                "seconds_min": round(walls[0], 2),
                "seconds_max": round(walls[2], 2),
                "cpu": round(spent[1], 2),
                "cpu_of_faster_coco_eval": round(spent[1] / of_peer[1], 3),
                "AP": round(each[0][2], 6),
                "rounds": len(each),
                **(machine("cpu") | {"threads": "1"}),
            }
        )
    print(write("coco_scoring-cpu", rows))


if __name__ == "__main__":
    main()
