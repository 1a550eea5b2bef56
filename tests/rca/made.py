"""Small images, folders and runs for the tests of this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.data.phantoms import phantom
from paperbench.rca.cases import Image

SHAPE = (40, 40)
QUICK = [
    "data.shape=[40,40]",
    "registration.affine=[[4,6]]",
    "registration.bspline=[[2,5,4]]",
    "registration.choose=false",
]
"""Overrides that make a registration take a hundredth of a second."""


def make_image(number: int, *, shape: tuple[int, ...] = SHAPE, masks: int = 0, name: str = "") -> Image:
    """A phantom with its truth and, as `mask-0`, `mask-1`, ..., its truth shifted by 0, 1, ... voxels."""
    image, truth = phantom(number, shape=shape)
    made = {f"mask-{k}": np.roll(truth, k, axis=0) for k in range(masks)}
    return Image(
        name=name or f"p{number}",
        intensities=image,
        spacing=(1.0,) * len(shape),
        physical=False,
        masks=made,
        truth=truth,
    )


def write_png(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(array.astype(np.uint8)).save(path)
    return path


def write_nifti(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(image / image.max() * 255, 0, 255).astype(np.uint8)


def folders(root: Path, *, cases: int = 2, references: int = 3, bits: bool = False) -> list[str]:
    """PNG folders with images, masks, truth and references, as overrides of `paperbench estimate rca`."""
    encode: Callable[[NDArray[Any]], NDArray[Any]] = (
        (lambda m: np.where(m > 0, 1 << (m - 1), 0)) if bits else (lambda m: m)
    )
    for k in range(references):
        image, truth = phantom(k, shape=SHAPE)
        write_png(root / "ref-images" / f"r{k}.png", grey(image))
        write_png(root / "ref-masks" / f"r{k}.png", encode(truth))
    for k in range(cases):
        image, truth = phantom(50 + k, shape=SHAPE)
        write_png(root / "images" / f"c{k}.png", grey(image))
        write_png(root / "masks" / f"c{k}.png", encode(np.roll(truth, 2 + k, axis=0)))
        write_png(root / "truth" / f"c{k}.png", encode(truth))
    return [
        f"images={root / 'images'}",
        f"masks={root / 'masks'}",
        f"reference.images={root / 'ref-images'}",
        f"reference.masks={root / 'ref-masks'}",
        *QUICK[1:],
        f"output.root={root / 'outputs'}",
        "calibration.kind=none",
    ]


def estimate(experiment: str, *words: str, directory: Path) -> tuple[Result, dict[str, Any]]:
    """Result and JSON of `paperbench estimate`."""
    result = CliRunner().invoke(app, ["estimate", experiment, *words, "--json", "--run-dir", str(directory)])
    return result, json.loads(result.stdout)
