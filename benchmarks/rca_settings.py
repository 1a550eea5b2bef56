"""Registration settings of reverse classification: chosen on the references, fixed, and ANTs SyN, on sets of many kinds.

    uv sync --group bench
    uv run python -m benchmarks.rca_settings --root DIR --sets jsrt hippocampus cells phantoms phantoms-pose
    uv run python -m benchmarks.rca_settings --root DIR --methods ants

Writes `results/rca-settings-cpu.csv`; lines of other sets and methods stay. Every method gets the same references, images and
masks, deformed to every quality, and predicts by the best Dice score, not calibrated. Seconds are of registration, labels and
scores, one thread; those of the choice stand in a column of their own.

Sets: `jsrt` at 128 pixels and `hippocampus` below `--root`; `cells`, the folders `WBC/images` and `WBC/masks` of pictures under the
same names; generated phantoms, also with other poses, sizes, shades, noise, inverted contrast (of all or of half of the images),
another field of view, and as volumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from scipy import ndimage

from benchmarks.common import earlier_rows, machine, write
from benchmarks.rca_peers import Ants
from paperbench.config.compose import compose
from paperbench.data import phantoms
from paperbench.rca import datasets
from paperbench.rca.atlas import Atlas
from paperbench.rca.cases import Image, with_degraded
from paperbench.rca.config import ReferenceConfig, RegistrationConfig
from paperbench.rca.evaluation import agreement
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.scoring import MaskScores, ReverseClassifier, score_masks
from paperbench.rca.settings import Settings, initial_settings
from paperbench.rca.settings_choice import LeftOutSet, choose_in_memory

NAME = "rca-settings-cpu"
KEYS = ("data", "method")
REFERENCES = 8
SIDE = 128
MASK_SEED = 1
"""The masks of the cases are others than those on which settings are chosen."""
Array = NDArray[Any]
Set = tuple[Labels, list[Image], list[Image]]


# --- sets -------------------------------------------------------------------------------------------------------------


def real(name: str, root: str, cases: int) -> Set:
    """Return references and cases of a set that the program reads; radiographs are reduced to `SIDE` pixels."""
    words = [f"data={name}", f"data.root={root}", f"data.cases={cases}", f"data.references={REFERENCES}"]
    config = compose("rca", words).config.data
    source = datasets.open_set(config)
    numbers = datasets.split(config, source.size)
    images = [source.read(number) for number in (*numbers["references"], *numbers["cases"])]
    if source.dims == 2:
        images = [small(image) for image in images]
    return source.labels, images[:REFERENCES], images[REFERENCES:]


def small(image: Image) -> Image:
    """Return a picture reduced to `SIDE` pixels: means of intensities, every n-th label."""
    factor = image.intensities.shape[0] // SIDE
    assert image.truth is not None
    blocks = image.intensities.reshape(SIDE, factor, SIDE, factor).mean((1, 3))
    return replace(image, intensities=blocks.astype(np.float32), truth=image.truth[::factor, ::factor])


def cells(root: str, cases: int) -> Set:
    """Return references and cases of pictures of cells."""
    paths = sorted((Path(root) / "WBC" / "images").iterdir())
    order = np.random.default_rng(0).permutation(len(paths))[: REFERENCES + cases]
    images = []
    for path in (paths[number] for number in order):
        grey = np.asarray(PilImage.open(path).convert("L"))
        images.append(image_of(path.stem, grey, np.asarray(PilImage.open(Path(root) / "WBC" / "masks" / path.name))))
    return Labels("values", (1, 2), ("cytoplasm", "nucleus")), images[:REFERENCES], images[REFERENCES:]


def image_of(name: str, intensities: Array, truth: Array) -> Image:
    """Return an image without physical size."""
    return Image(
        name=name,
        intensities=intensities.astype(np.float32),
        spacing=(1.0,) * intensities.ndim,
        physical=False,
        truth=truth.astype(np.int64),
    )


def moved(
    image: Array,
    truth: Array,
    rng: np.random.Generator,
    *,
    angle: float = 0.0,
    size: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
) -> tuple[Array, Array]:
    """Return a picture rotated by up to `angle` degrees, scaled, and shifted by up to a fraction of its sides."""
    turn = np.deg2rad(rng.uniform(-angle, angle))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / rng.uniform(*size)
    centre = (np.array(image.shape) - 1) / 2
    # SciPy takes an offset for each axis; its annotations lack that.
    offset: Any = centre - matrix @ (centre + rng.uniform(-shift, shift, 2) * image.shape)
    dark = float(np.percentile(image, 5))
    return (
        ndimage.affine_transform(image, matrix, offset, order=1, cval=dark),
        ndimage.affine_transform(truth, matrix, offset, order=0),
    )


Variant = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]
VARIANTS: dict[str, Variant] = {
    "phantoms": lambda image, truth, rng: (image, truth),
    "phantoms-volumes": lambda image, truth, rng: (image, truth),
    "phantoms-pose": lambda image, truth, rng: moved(image, truth, rng, angle=35, shift=0.08),
    "phantoms-size": lambda image, truth, rng: moved(image, truth, rng, size=(0.6, 1.2)),
    "phantoms-view": lambda image, truth, rng: moved(image, truth, rng, size=(0.9, 1.5), shift=0.15),
    "phantoms-shade": lambda image, truth, rng: (
        image * np.exp(phantoms.smooth_field(image.shape, rng, knots=3, size=0.6)),
        truth,
    ),
    "phantoms-noise": lambda image, truth, rng: (image + rng.normal(0, 0.2, image.shape), truth),
    "phantoms-inverted": lambda image, truth, rng: (1 - image, truth),
    "phantoms-half-inverted": lambda image, truth, rng: (1 - image if rng.uniform() < 0.5 else image, truth),
}


def generated(name: str, cases: int) -> Set:
    """Return references and cases of a variant of the phantoms."""
    shape = (36, 36, 36) if name == "phantoms-volumes" else (96, 96)
    images = []
    for number in range(REFERENCES + cases):
        image, truth = phantoms.phantom(number, shape=shape)
        changed = VARIANTS[name](image / image.max(), truth, np.random.default_rng([5, number]))
        images.append(image_of(f"phantom-{number:04d}", *changed))
    labels = Labels("values", tuple(range(1, len(phantoms.NAMES) + 1)), phantoms.NAMES)
    return labels, images[:REFERENCES], images[REFERENCES:]


def open_set(name: str, options: argparse.Namespace) -> Set:
    """Return labels, references and cases; volumes take fewer cases."""
    cases = options.volumes if name in ("hippocampus", "phantoms-volumes") else options.images
    if name in VARIANTS:
        return generated(name, cases)
    return cells(options.root, cases) if name == "cells" else real(name, options.root, cases)


# --- methods ----------------------------------------------------------------------------------------------------------


def fixed_settings(initial: Settings) -> dict[str, Settings]:
    """Return the fixed settings that the choice is compared with, by their difference from the defaults."""
    found = [
        replace(initial, contrast=contrast, window=window) for contrast in (0.0, 0.13) for window in (0.0, 2.0, 4.0)
    ]
    found += [replace(initial, focus=value) for value in (0.0, 0.1)]
    found += [replace(initial, resolution=value) for value in (0.5, 2.0)]
    found += [replace(initial, stiffness=initial.stiffness * value) for value in (1 / 3, 3.0)]
    found.append(replace(initial, contrast=0.13, window=0.0, resolution=2.0))
    return {difference(each, initial): each for each in found}


def difference(settings: Settings, initial: Settings) -> str:
    """Return the overrides that differ from the defaults."""
    own, other = settings.overrides().split(), initial.overrides().split()
    words = [word.removeprefix("registration.") for word in own if word not in other]
    return " ".join(words) or "defaults"


def measured(
    labels: Labels, references: list[Image], cases: list[Image], classifier: ReverseClassifier, masks: int
) -> dict[str, Any]:
    """Return error, correlation, bias and seconds of the best score over all masks and labels."""
    scores: list[MaskScores] = []
    seconds = 0.0
    for case in cases:
        image = with_degraded(case, labels, masks=masks + 1, seed=MASK_SEED)
        image = replace(image, masks=dict(list(image.masks.items())[1:]))  # the first is the truth itself
        began = time.perf_counter()
        scores += score_masks(image, references, classifier, labels, ["dsc"]).masks
        seconds += time.perf_counter() - began
    found = agreement([predict(each, Rule()) for each in scores], threshold=0.7, rule=Rule())
    return {
        "references": len(references),
        "images": len(cases),
        "masks": found["masks"],
        "pearson_r": f"{found['pearson_r']:.3f}",
        "mae": f"{found['mae']:.4f}",
        "bias": f"{found['bias']:+.4f}",
        "seconds_per_image": f"{seconds / len(cases):.3f}",
    }


def rows_of(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a line for each method on one set."""
    labels, references, cases = open_set(name, options)
    config = RegistrationConfig()
    dims = references[0].intensities.ndim
    initial = initial_settings(config, dims)

    def line(method: str, classifier: ReverseClassifier, settings: str = "", **more: str) -> dict[str, Any]:
        numbers = measured(labels, references, cases, classifier, options.masks)
        choice = {"settings": settings, "choice_seconds": "", "choice_trials": "", **more}
        return {"data": name, "method": method, **choice, **numbers, **machine("cpu")}

    def atlas(settings: Settings) -> Atlas:
        return Atlas(settings.apply(config, dims), labels=labels)

    if "chosen" in options.methods:
        began = time.perf_counter()
        choice = choose_in_memory(LeftOutSet(references, labels, config, ReferenceConfig()), "cpu")
        cost = {"choice_seconds": f"{time.perf_counter() - began:.1f}", "choice_trials": str(len(choice.trials))}
        yield line("chosen", atlas(choice.settings), difference(choice.settings, initial), **cost)
    if "fixed" in options.methods:
        for words, settings in fixed_settings(initial).items():
            yield line(words, atlas(settings), words)
    if "ants" in options.methods:
        yield line("ANTs SyN", Ants())


def main() -> None:
    """Writes `results/rca-settings-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = ("cells", "jsrt", "hippocampus", *VARIANTS)
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets)
    parser.add_argument(
        "--methods", nargs="+", choices=("chosen", "fixed", "ants"), default=("chosen", "fixed", "ants")
    )
    parser.add_argument("--root", default="", help="folder of the real sets")
    parser.add_argument("--images", type=int, default=12, help="pictures whose masks are scored")
    parser.add_argument("--volumes", type=int, default=4, help="volumes whose masks are scored")
    parser.add_argument("--masks", type=int, default=4, help="masks of each")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.sets:
        for row in rows_of(name, options):
            print(*list(row.values())[:12], flush=True)
            write(NAME, [*earlier_rows(NAME, [row], KEYS), row])


if __name__ == "__main__":
    main()
