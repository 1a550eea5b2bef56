"""The smoke run of every experiment, and its final metrics.

A run that only has to end is no test of its numbers: `tests/test_experiments.py` holds each metric of the runs that it makes anyway
against the one that is kept here. What changes results on purpose renews them, and says so:

    uv run python -m tests.golden.smoke            # all of them
    uv run python -m tests.golden.smoke vae rca    # two
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from paperbench.catalog import TASKS
from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.config.paths import shipped_conf
from paperbench.records.metrics import MetricRegistry, declared_for

EXPERIMENTS = sorted(file.stem for file in (shipped_conf() / "experiment").glob("*.yaml"))
FOLDER = Path(__file__).with_name("metrics")

PLACE = ("precision=float32", "device=cpu", "threads=1")
"""Machines choose these by themselves: of the same commit, `precision=auto` is bfloat16 on one and float32 on another."""

RELATIVE = 0.005
"""Losses, bounds and errors of float32 by kernels for SSE and for AVX2 differ by less than a thousandth after these trainings."""
ABSOLUTE = 1e-4
LOOSE = (
    ("*coco/*AP/*", 12.0),
    ("*voc*/AP/*", 12.0),
    ("*coco/*A[PR][sml]", 12.0),
    ("*coco/*", 5.0),
    ("*voc*/mAP", 5.0),
    ("*proposals/*", 6.0),
    ("rca/*pearson_r", 0.05),
    ("rca/*", 0.02),
    ("*errors", 2.0),
)
"""Of metrics by pattern, the first that fits, how far from the kept value they may lie where rounding differs.

A detector of a few steps scores its boxes nearly alike, so that rounding decides which of two comes first: of a class or a size
with three or four objects that moves the precision by up to 9 points, of all by up to 2.6. Proposals cover one of 18 objects more
or less, and an image with two nearly equal logits is one error. A registration stops where it no longer improves: scores moved by
.004, a correlation over three cases by .013."""
PERCENT = 3.0
"""The same for other percentages, which move in steps of a test image."""


# --- the run ----------------------------------------------------------------------------------------------------------


def voc_files(folder: Path) -> list[str]:
    """A devkit of one image and the detections of its one object, as overrides of the experiment `detections`."""
    devkit = folder / "VOCdevkit" / "VOC2012"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / part).mkdir(parents=True)
    (devkit / "ImageSets/Main/val.txt").write_text("one\n")
    (devkit / "Annotations/one.xml").write_text(
        "<annotation><filename>one.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>"
        "<object><name>cat</name><difficult>0</difficult>"
        "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"
    )
    from PIL import Image

    Image.new("RGB", (40, 30)).save(devkit / "JPEGImages/one.jpg")
    (folder / "comp4_det_val_cat.txt").write_text("one 0.9 5 5 20 25\n")
    return ["format=voc", f"gt={devkit}", f"dt={folder}", "split=val", "classes=[cat]"]


def scores_file(folder: Path) -> list[str]:
    """Scores of two references for a handful of cases with their truth, as overrides of the experiment `rca-scores`."""
    rows = [
        f"case{case},organ,{reference},{0.1 * case + 0.05 * position},{0.1 * case + 0.02}"
        for case in range(8)
        for position, reference in enumerate(("a", "b"))
    ]
    file = folder / "scores.csv"
    file.write_text("\n".join(["case,label,reference,score,truth", *rows]) + "\n", encoding="utf-8")
    return [f"scores={file}"]


def trained_proposals(folder: Path) -> list[str]:
    """A detector that has seen a few images, as an override of the experiment `rpn-proposals`."""
    CliRunner().invoke(
        app,
        ["train", "faster-rcnn", *PLACE, "--smoke", "--run-dir", str(folder / "rpn")],
        catch_exceptions=False,
    )
    return [f"proposals.run={folder / 'rpn'}"]


NEEDS = {"detections": voc_files, "rca-scores": scores_file, "rpn-proposals": trained_proposals}


def run_smoke(experiment: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """Run an experiment by its command in `folder`; return the results that it prints and the run's directory."""
    overrides = NEEDS[experiment](folder) if experiment in NEEDS else []
    verb = TASKS[compose(experiment, overrides).task.name].verb
    directory = folder / "run"
    words = [verb, experiment, *overrides, *PLACE, f"output.root={folder / 'outputs'}", "--smoke", "--json"]
    result = CliRunner().invoke(app, [*words, "--run-dir", str(directory)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), directory


# --- its metrics ------------------------------------------------------------------------------------------------------


def kept(experiment: str) -> Path:
    """Where the metrics of an experiment are kept."""
    return FOLDER / f"{experiment}.json"


def lasting(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a run without those that are read off a clock."""
    declared = MetricRegistry(declared_for(results["task"]))
    return {name: value for name, value in results["metrics"].items() if not declared[name].timed}


def tolerance(name: str, value: float, unit: str) -> float:
    """Return how far a metric may lie from its kept value."""
    least = next(
        (slack for pattern, slack in LOOSE if fnmatchcase(name, pattern)), PERCENT if unit == "%" else ABSOLUTE
    )
    return max(least, RELATIVE * abs(value))


def differences(results: Mapping[str, Any]) -> list[str]:
    """Return what differs between the results of a smoke run and what is kept, a line each."""
    expected = json.loads(kept(results["experiment"]).read_text(encoding="utf-8"))
    found = lasting(results)
    lines = [f"{name}: not there" for name in expected if name not in found]
    lines += [f"{name}: new" for name in found if name not in expected]
    units = MetricRegistry(declared_for(results["task"]))
    for name in expected.keys() & found.keys():
        value, then = found[name], expected[name]
        if not abs(value - then) <= tolerance(name, then, units[name].unit):
            lines.append(f"{name}: {value:.6g}, and {then:.6g} is kept")
    return sorted(lines)


def main() -> None:
    """Write the metrics of this machine over those that are kept, of the experiments that the command line names or of all."""
    for experiment in sys.argv[1:] or EXPERIMENTS:
        with tempfile.TemporaryDirectory() as scratch:
            results, _ = run_smoke(experiment, Path(scratch))
        FOLDER.mkdir(exist_ok=True)
        text = json.dumps(lasting(results), indent=1, sort_keys=True)
        kept(experiment).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
