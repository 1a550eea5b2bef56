"""Reverse classification accuracy: batched registration against other libraries, and accuracy of predictions on real data.

    uv sync --group bench
    uv run python -m benchmarks.rca speed --data jsrt --root DIR --images 12 --elastix-images 4
    uv run python -m benchmarks.rca masks --data jsrt --root DIR --images 12
    uv run python -m benchmarks.rca accuracy --data jsrt --root DIR --images 100

Each writes `results/rca-<mode>-<data>-cpu.csv`, `speed` with one thread `results/rca-speed-<data>-one-core-cpu.csv`.

`speed`: the same images, masks and references, methods interleaved image by image, every method with the same number of cores; wall
seconds from the images in memory to the scores, registration to all references included, and the error of the predictions.
SimpleITK has the settings of `classifier=atlas-sitk`, once on all voxels and once on every fifth; elastix, ANTs and DIPY those of
`rca_peers`. They may get fewer images and references; the comparison is then on those. On one core: `--threads 1` with
`OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1`.

`masks`: the cost of one more segmenter, reading of files included, nothing cached from an earlier image.

`accuracy`: runs of `paperbench estimate rca`, calibrated on degraded masks of the references and on 24 images with masks that are
neither references nor cases (`--calibration` takes one of the two); a line for each label and seed of the masks, and their mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image as PilImage

from benchmarks.common import earlier_rows, machine, write
from benchmarks.rca_peers import Ants, Dipy, Elastix
from paperbench.config.compose import compose
from paperbench.rca import case_files, datasets
from paperbench.rca.atlas import Atlas, schedule
from paperbench.rca.cases import CaseSet, Image, normalised
from paperbench.rca.evaluation import agreement
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.scoring import MaskScores, ReverseClassifier, score_masks
from paperbench.rca.sitk import SitkAtlas

CALIBRATING = 24
SEGMENTERS = 5
KINDS = ("references", "labelled")
COLUMNS = (
    "masks",
    "pearson_r",
    "mae",
    "bias",
    "calibrated_mae",
    "mean_mae",
    "accuracy@0.7",
    "failure_auroc",
    "coverage",
)
KEYS = ("data", "settings", "calibration", "label", "seed")
"""Columns that identify a line of `accuracy`: other settings are measured in other calls."""
Rows = list[dict[str, Any]]


@dataclass(kw_only=True)
class Method:
    """A registration method, its numbers of images and references, and its results."""

    name: str
    classifier: ReverseClassifier
    images: int
    references: int
    seconds: list[float] = field(default_factory=list)
    masks: list[tuple[MaskScores, ...]] = field(default_factory=list)
    failures: int = 0

    def score_masks(self, image: Image, case_set: CaseSet) -> None:
        began = time.perf_counter()
        chosen = case_set.references[: self.references]
        result = score_masks(image, chosen, self.classifier, case_set.labels, ["dsc"])
        self.seconds.append(time.perf_counter() - began)
        self.masks.append(result.masks)
        self.failures += len(result.failures)
        print(f"{image.name} {self.name}: {self.seconds[-1]:.2f} s for {len(chosen)} references", flush=True)

    def agreement(self, images: int, references: Sequence[str]) -> dict[str, float]:
        """Return the agreement of the best of these references with the truth, on the first `images` images."""
        predictions = [
            predict(replace(mask, scores=tuple(pair for pair in mask.scores if pair[0] in references)), Rule())
            for group in self.masks[:images]
            for mask in group
        ]
        return agreement(predictions, threshold=0.7, rule=Rule())

    @property
    def pace(self) -> float:
        """Seconds per image and reference."""
        return sum(self.seconds) / len(self.seconds) / self.references


def case_set_of(options: argparse.Namespace, *, masks: int) -> tuple[CaseSet, Atlas]:
    """Return references and cases of the set, and the default registration without stored transforms."""
    words = [f"data={options.data}", f"segmenters.masks={masks}", "data.cases=100", "calibration.kind=none"]
    config = compose("rca", [*words, *([f"data.root={options.root}"] if options.root else [])]).config
    case_set = datasets.find(config).read()
    levels = schedule(config.registration, case_set.references[0].intensities.ndim)
    return case_set, Atlas(levels, labels=case_set.labels, samples=config.registration.samples)


def speed(options: argparse.Namespace) -> Rows:
    """Return a line for each method: seconds, r and mean absolute error over all labels."""
    case_set, atlas = case_set_of(options, masks=2)
    count = len(case_set.references)
    ours = Method(name="batched torch", classifier=atlas, images=options.images, references=count)
    few = min(count, options.other_references or count)
    methods = [ours]
    peers: dict[str, tuple[int, Callable[[], ReverseClassifier]]] = {
        "SimpleITK": (options.sitk_images, lambda: SitkAtlas(threads=options.threads)),
        "SimpleITK, a fifth of the voxels": (
            options.sitk_images, lambda: SitkAtlas(threads=options.threads, share=0.2)
        ),
        "elastix": (options.elastix_images, lambda: Elastix(options.iterations)),
        "ANTs SyN": (options.ants_images, Ants),
        "DIPY SyN": (options.dipy_images, Dipy),
    }  # fmt: skip
    for name, (images, make) in peers.items():
        if images:
            methods.append(Method(name=name, classifier=make(), images=images, references=few))
    score_masks(
        case_set.cases[0].load(), case_set.references[:1], atlas, case_set.labels, ["dsc"]
    )  # the first use is slower
    began = time.perf_counter()
    for number, case in enumerate(case_set.cases[: options.images]):
        image = case.load()
        for method in methods:
            late = method is not ours and method.seconds and time.perf_counter() - began > options.budget
            if number < method.images and not late:
                method.score_masks(image, case_set)
    return [compared(method, ours, options.data, case_set) for method in methods if method.seconds]


def compared(method: Method, ours: Method, data: str, case_set: CaseSet) -> dict[str, Any]:
    """Return a line that compares one method with ours, on the images and references of both."""
    images = len(method.seconds)
    names = [reference.name for reference in case_set.references[: method.references]]
    own, same = method.agreement(images, names), ours.agreement(images, names)
    return {
        "data": data,
        "method": method.name,
        "images": images,
        "references": method.references,
        "failed_registrations": method.failures,
        "masks": own["masks"],
        "seconds_per_image": f"{sum(method.seconds) / images:.3f}",
        "seconds_per_image_and_reference": f"{method.pace:.4f}",
        "times_slower_per_reference": f"{method.pace / (sum(ours.seconds[:images]) / images / ours.references):.1f}",
        "pearson_r": f"{own['pearson_r']:.3f}",
        "mae": f"{own['mae']:.4f}",
        "pearson_r_of_batched_on_the_same": f"{same['pearson_r']:.3f}",
        "mae_of_batched_on_the_same": f"{same['mae']:.4f}",
        **machine("cpu"),
    }


# --- one more segmenter -----------------------------------------------------------------------------------------------


def masks(options: argparse.Namespace) -> Rows:
    """Return a line for one segmenter, and one for several: seconds per image, reading of files included."""
    case_set, atlas = case_set_of(options, masks=SEGMENTERS)
    seconds: dict[int, list[float]] = {1: [], SEGMENTERS: []}
    with tempfile.TemporaryDirectory() as scratch:
        for case in case_set.cases[: options.images]:
            entry = exported(case.load(), Path(scratch))
            for count in (1, SEGMENTERS, SEGMENTERS, 1):
                some = case_files.Entry(
                    name=entry.name, image=entry.image, masks=dict(list(entry.masks.items())[:count])
                )
                began = time.perf_counter()
                score_masks(case_files.read(some, resample=False), case_set.references, atlas, case_set.labels, ["dsc"])
                seconds[count].append(time.perf_counter() - began)
    one, several = (median(seconds[count]) for count in (1, SEGMENTERS))
    paired = [b - a for a, b in zip(seconds[1], seconds[SEGMENTERS], strict=True)]
    more = median(paired) / (SEGMENTERS - 1)
    rows = []
    for count, value in ((1, one), (SEGMENTERS, several)):
        rows.append(
            {
                "data": options.data,
                "segmenters": count,
                "labels": len(case_set.labels),
                "references": len(case_set.references),
                "images": options.images,
                "median_seconds_per_image": f"{value:.4f}",
                "seconds_per_further_segmenter": f"{more:.4f}",
                "further_segmenter_percent": f"{100 * more / one:.2f}",
                **machine("cpu"),
            }
        )
    print(f"{one:.3f} s an image with one segmenter, {100 * more / one:.2f} % more for each further one")
    return rows


def exported(image: Image, folder: Path) -> case_files.Entry:
    """Write the image and its masks as files: PNG in two dimensions, NIfTI in three."""

    def save(name: str, array: np.ndarray) -> Path:
        if array.ndim == 2:
            path = folder / f"{image.name}-{name}.png"
            grey = 255 * normalised(array) if name == "image" else array
            PilImage.fromarray(grey.astype(np.uint8)).save(path)
            return path
        path = folder / f"{image.name}-{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array.astype(np.float32 if name == "image" else np.uint8), np.eye(4)), path)
        return path

    paths = {name: save(name, mask) for name, mask in image.masks.items()}
    return case_files.Entry(name=image.name, image=save("image", image.intensities), masks=paths)


# --- agreement with the truth -----------------------------------------------------------------------------------------


def accuracy(options: argparse.Namespace) -> Rows:
    """Return a line for each label, seed and calibration: agreement with the truth, masks deformed to every quality."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS if options.calibration == "both" else (options.calibration,):
            by_seed = [
                estimated(options, kind, seed, Path(options.runs or scratch).absolute()) for seed in options.seeds
            ]
            labels = list(dict.fromkeys(key.split("/")[1] for key in by_seed[0] if key.count("/") == 2))
            for label in ("all", *labels):
                prefix = "rca" if label == "all" else f"rca/{label}"
                found = [{name: seed.get(f"{prefix}/{name}", math.nan) for name in COLUMNS} for seed in by_seed]
                who = dict(zip(map(str, options.seeds), found, strict=True))
                if len(found) > 1:
                    who["mean"] = {name: mean(one[name] for one in found) for name in COLUMNS}
                for seed, values in who.items():
                    row = {
                        "data": options.data,
                        "settings": " ".join(options.override),
                        "calibration": kind,
                        "label": label,
                    }
                    row |= {"images": int(by_seed[0]["rca/cases"]), "references": 8, "seed": seed}
                    row |= {name: f"{value:.4g}" for name, value in values.items()}
                    rows.append({**row, "calibrated_percent": percent(row), **machine("cpu")})
                    print(*list(row.values()), flush=True)
    return rows


def percent(row: dict[str, Any]) -> str:
    """Return the change of the error by calibration, in percent."""
    return f"{100 * (float(row['calibrated_mae']) / float(row['mae']) - 1):+.1f}"


def estimated(options: argparse.Namespace, kind: str, seed: int, runs: Path) -> dict[str, float]:
    """Return the metrics of one run below `runs`, which is read, resumed, or started; transforms are shared."""
    directory = runs / "-".join([options.data, *options.override, kind, str(seed)])
    words = [f"data={options.data}", f"data.cases={options.images}", f"calibration.kind={kind}", "pictures=0"]
    words += [f"data.calibration={CALIBRATING}", f"output.root={runs}", f"seed={seed}", *options.override]
    words += [f"threads={options.threads}", *([f"data.root={options.root}"] if options.root else [])]
    begin = ["estimate", "rca", *words, "--run-dir", str(directory)]
    results = directory / "results.json"
    if not results.exists():
        command = ["resume", str(directory)] if (directory / "config.yaml").exists() else begin
        subprocess.run([sys.executable, "-m", "paperbench", *command, "--json"], stdout=subprocess.DEVNULL, check=True)
    return json.loads(results.read_text(encoding="utf-8"))["metrics"]


def main() -> None:
    """Writes `results/rca-<mode>-<data>-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes: dict[str, Callable[[argparse.Namespace], Rows]] = {"speed": speed, "masks": masks, "accuracy": accuracy}
    parser.add_argument("mode", choices=tuple(modes))
    parser.add_argument("--data", choices=("phantoms", "jsrt", "hippocampus"), default="phantoms")
    parser.add_argument("--root", default="", help="data.root of the real sets")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--sitk-images", type=int, default=None, help="SimpleITK takes the first N; by default all")
    parser.add_argument("--elastix-images", type=int, default=0, help="elastix takes the first N; 0 leaves it out")
    parser.add_argument("--ants-images", type=int, default=0, help="ANTs takes the first N; 0 leaves it out")
    parser.add_argument("--dipy-images", type=int, default=0, help="DIPY takes the first N; 0 leaves it out")
    parser.add_argument("--other-references", type=int, default=0, help="the others take the first N; by default all")
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="`speed`: seconds after which only ours continues"
    )
    parser.add_argument("--iterations", type=int, default=2000, help="of elastix's B-spline stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the deformed masks")
    parser.add_argument(
        "--calibration", choices=("both", *KINDS), default="both", help="`accuracy`: data of the calibration"
    )
    parser.add_argument(
        "--runs", default="", help="`accuracy`: folder of its runs, which are resumed where they stopped"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("override", nargs="*", help="of `accuracy`'s experiment, such as classifier=forest")
    options = parser.parse_intermixed_args()  # overrides may stand behind the options
    options.sitk_images = options.images if options.sitk_images is None else options.sitk_images
    torch.set_num_threads(options.threads)
    cores = "-one-core" if options.mode == "speed" and options.threads == 1 else ""
    name, rows = f"rca-{options.mode}-{options.data}{cores}-cpu", modes[options.mode](options)
    earlier = earlier_rows(name, rows, KEYS) if options.mode == "accuracy" else []
    print(f"written to {write(name, [*earlier, *rows])}")


if __name__ == "__main__":
    main()
