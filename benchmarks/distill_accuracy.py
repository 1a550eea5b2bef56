"""Accuracy of distillation at `scale=short`, over seeds; every row is made of runs of the program.

    uv run python -m benchmarks.distill_accuracy --data DIR                                    everything
    uv run python -m benchmarks.distill_accuracy --data DIR --parts nets omitted

| part | data | what |
|---|---|---|
| nets | MNIST | the teacher, 2x800 on hard targets, 2x800 distilled at T = 20 |
| omitted | MNIST | students that never saw a 3, or only 7s and 8s, hard_weight=10; the bias by test and by validation images |
| omitted-weights | MNIST | the one without 3s with hard targets of other weights: the paper gives no number |
| omitted-choice | MNIST | both transfer sets with hard targets of other weights, chosen by the errors on validation images |
| omitted-temperatures | MNIST | the one without 3s at T = 4 and 8: the paper does not state the temperature |
| omitted-all | MNIST | the same without validation images, as in the paper: the bias is chosen on the test set alone |
| width-30, width-300, width-800 | MNIST | temperatures 1, 2, 3, 4, 8, 20 with three seeds, stacked; one teacher |
| little | MNIST | 3 % of the images: hard targets with early stopping, of these or of all images; soft ones without |
| ensemble | MNIST | five 2x300 in one, their probabilities or their logits averaged |
| specialists | pairs of digits | 45 classes, a generalist and nine specialists; how many know a class |
| digits | scikit-learn's digits | the default of `paperbench train distill` |

Runs stay below `--runs` and none is repeated: the command may be stopped and started again, and the CSV keeps the rows of other
parts. `seconds` are those of the program, from a run's start to its results, with the training of its teacher; stacked runs share
them, and `stacked` is their number. On a busy machine they say little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import earlier_rows, machine, machine_of, write

NAME = "distill-accuracy"
THREE_NETS = ("teacher", "baseline", "distilled")
TEMPERATURES = (1, 2, 3, 4, 8, 20)
BIASED = ("test/errors", "omitted/errors", "omitted/right", "bias", "removed")

Row = dict[str, Any]
Results = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command: `paperbench sweep EXPERIMENT OVERRIDES seed=...`, and the metrics that are read from its runs.

    `seeds`: 0 to that number, less one.
    """

    part: str
    what: str
    overrides: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    experiment: str = "distill"
    data: str = "mnist"
    seeds: int = 3
    stacked: bool = False


def _scores(*nets: str, kind: str = "errors") -> tuple[str, ...]:
    return tuple(f"{net}/test/{kind}" for net in nets)


VALIDATION_ERRORS = ("distilled/validation/errors", "validated/validation/errors")
"""Errors on training images held back, without the bias and with the one that is best on them."""

OMITTED_METRICS = tuple(f"{kind}/{name}" for kind in ("distilled", "corrected", "validated") for name in BIASED)


TRANSFER_SETS = {"without 3s": ("transfer.omit=3",), "only 7s and 8s": ("transfer.omit=[]", "transfer.only=[7,8]")}


def _omitted() -> list[Case]:
    return [
        Case(
            part="omitted" if held else "omitted-all",
            what=f"{what}, {'a tenth' if held else 'nothing'} held back",
            experiment="distill-omitted",
            overrides=(*choice, f"validation.fraction={held}", "teaching.seed=0", "hard_weight=10"),
            metrics=OMITTED_METRICS,
            seeds=3 if held else 1,
            stacked=True,
        )
        for held in (0.1, 0)
        for what, choice in TRANSFER_SETS.items()
    ]


def _omitted_choice() -> list[Case]:
    """The weight of the labels where classes are omitted, judged on training images alone."""
    return [
        Case(
            part="omitted-choice",
            what=f"{what}, a tenth held back",
            experiment="distill-omitted",
            overrides=(*choice, "teaching.seed=0", "hard_weight=0.1,1,3,10"),
            metrics=(*VALIDATION_ERRORS, *OMITTED_METRICS),
            seeds=2,
            stacked=True,
        )
        for what, choice in TRANSFER_SETS.items()
    ]


def _width(width: int) -> Case:
    temperatures = ",".join(map(str, TEMPERATURES))
    return Case(
        part=f"width-{width}",
        what=f"2x{width}",
        overrides=(f"model.width={width}", f"temperature={temperatures}", "teaching.seed=0"),
        metrics=_scores("baseline", "distilled"),
        stacked=True,
    )


def _ensemble(average: str) -> Case:
    plain = ("width=300", "dropout=0", "input_dropout=0", "max_norm=0")
    return Case(
        part="ensemble",
        what=f"five 2x300 in one, {average} averaged",
        overrides=(
            *(f"teaching.net.{key}" for key in plain),
            "teaching.jitter=0",
            "teaching.members=5",
            f"teaching.average={average}",
            "teaching.seed=100",
            "model.width=300",
            "temperature=4",
        ),
        metrics=_scores(*THREE_NETS) + tuple(f"teacher-{number}/test/errors" for number in range(5)),
        stacked=True,
    )


CASES = (
    Case(part="nets", what="2x1200, 2x800, T = 20", metrics=_scores(*THREE_NETS), seeds=1),
    *_omitted(),
    *_omitted_choice(),
    Case(
        part="omitted-weights",
        what="without 3s, a tenth held back",
        experiment="distill-omitted",
        overrides=("transfer.omit=3", "teaching.seed=0", "hard_weight=0.1,1,3,10"),
        metrics=OMITTED_METRICS,
        stacked=True,
    ),
    Case(
        part="omitted-temperatures",
        what="without 3s, a tenth held back",
        experiment="distill-omitted",
        overrides=("transfer.omit=3", "teaching.seed=0", "hard_weight=10", "temperature=4,8"),
        metrics=OMITTED_METRICS,
        seeds=1,
        stacked=True,
    ),
    _width(30),
    *(
        Case(
            part="little",
            what=f"3 % of the images; hard targets of {images}",
            experiment="distill-regulariser",
            overrides=("transfer.fraction=0.03", f"baseline.images={images}", "teaching.seed=0"),
            metrics=tuple(f"{net}/{split}/accuracy" for net in THREE_NETS for split in ("train", "test")),
            seeds=1,
        )
        for images in ("transfer", "all")
    ),
    Case(
        part="specialists",
        what="45 classes, 9 specialists",
        experiment="distill-specialists",
        data="digit-pairs",
        metrics=(
            *(f"{who}/{name}" for name in ("test/accuracy", "conditional/accuracy") for who in ("generalist", "specialists")),
            "specialists/relative_gain",
            "specialists/count",
            "specialists/classes",
            "coverage/*",
        ),
        seeds=1,
    ),
    Case(part="digits", what="2x1200, 2x800, T = 20", data="digits", metrics=_scores(*THREE_NETS)),
    _width(300),
    *(_ensemble(average) for average in ("probabilities", "logits")),
    _width(800),
)  # fmt: skip
PARTS = tuple(dict.fromkeys(case.part for case in CASES))


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A run of a sweep: the varied settings, its `results.json` and its folder."""

    labels: dict[str, str]
    results: Results
    folder: Path


def runs_of(case: Case, args: argparse.Namespace) -> list[SweepRun]:
    """Run the sweep of a case, or read it where it is finished; return its runs."""
    where = [f"data.root={args.data.absolute()}"] if case.data == "mnist" else []
    command = [
        *(sys.executable, "-m", "paperbench", "sweep", case.experiment, f"data={case.data}", *where, *case.overrides),
        f"seed={','.join(map(str, range(case.seeds)))}",
        *(f"output.root={args.runs}", f"scale={args.scale}", f"device={args.device}", f"threads={args.threads}", "--json"),
        *(["--stacked"] if case.stacked else []),
    ]  # fmt: skip
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)
    runs = json.loads(finished.stdout)["runs"]
    return [SweepRun(labels=run["labels"], results=run["results"], folder=Path(run["directory"])) for run in runs]


def rows_of(case: Case, runs: Sequence[SweepRun], args: argparse.Namespace) -> list[Row]:
    """Return one row for each metric and setting that varies beside the seed."""
    settings: dict[str, list[SweepRun]] = {}
    for run in runs:
        setting = ", ".join(f"{key}={value}" for key, value in run.labels.items() if key != "seed")
        settings.setdefault(setting, []).append(run)
    rows: list[Row] = []
    for setting, group in settings.items():
        results = [run.results for run in group]
        first = {"part": case.part, "what": case.what, "setting": setting}
        last = {**machine_columns(group, args.device), "scale": args.scale}
        rows += [{**first, "metric": name, **_numbers(results, name), **last} for name in _named(case.metrics, results)]
    return rows


def machine_columns(runs: Sequence[SweepRun], device: str) -> dict[str, str]:
    """Return machine, versions, commit and date of the runs, all of them where they differ."""
    if device != "cpu":
        return machine(device)
    each = [machine_of(run.folder) for run in runs]
    return {column: " and ".join(dict.fromkeys(one[column] for one in each)) for column in each[0]}


def _named(wanted: Sequence[str], found: Sequence[Results]) -> list[str]:
    """The metrics that some run has; `NAME/*` stands for all that begin so. (Coverage depends on the clusters of a seed.)"""
    there = dict.fromkeys(name for results in found for name in results["metrics"])
    return [
        name
        for pattern in wanted
        for name in there
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    ]


def _numbers(found: Sequence[Results], metric: str) -> dict[str, Any]:
    values = [results["metrics"][metric] for results in found if metric in results["metrics"]]
    return {
        "mean": f"{mean(values):.5g}",
        "lowest": f"{min(values):.5g}",
        "highest": f"{max(values):.5g}",
        "by_seed": " ".join(f"{value:.5g}" for value in values),
        "seconds": f"{max(results['seconds'] for results in found):.0f}",
        "stacked": max(results.get("stacked", results.get("side_by_side", 1)) for results in found),
        "precision": found[0]["precision"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes `results/distill-accuracy-<device>.csv` after every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--runs", type=Path, default=Path("outputs"))
    parser.add_argument("--scale", default="short", choices=("smoke", "short", "paper"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice: all cores")
    args = parser.parse_args(arguments)
    name = f"{NAME}-{args.device.partition(':')[0]}"
    rows: list[Row] = []
    for case in CASES:
        if case.part in args.parts:
            rows += rows_of(case, runs_of(case, args), args)
            order = sorted([*earlier_rows(name, rows, ("part",)), *rows], key=lambda row: PARTS.index(row["part"]))
            print(write(name, order), case.part, case.what, flush=True)


if __name__ == "__main__":
    main()
