"""Small sets and runs for the tests of segmenters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.data.phantoms import phantom
from paperbench.rca.config import HippocampusData, JsrtData, PhantomData
from paperbench.rca.segmenters.splits import Splits, open_splits
from tests.rca.made import grey, write_nifti, write_png

SHAPE = (32, 32)
SMALL = ["data.shape=[32,32]", "data.references=2", "data.cases=2", "data.training=3"]
TINY = {
    "unet": ["model=unet", "model.epochs=[1,2]", "model.width=4", "model.batch_size=2"],
    "forest": ["model=forest", "model.trees=[1,3]", "model.voxels=150"],
    "multi-atlas": ["model=multi-atlas", "model.atlases=[1,2]"],
}
"""Overrides of `train segment` that take a second."""


def phantoms(**changes: Any) -> Splits:
    return open_splits(PhantomData(**{"shape": SHAPE, "references": 2, "cases": 2, "training": 3, **changes}))


def radiographs(root: Path, count: int = 6) -> Splits:
    """A folder as of JSRT: PNG, organs that overlap as bits."""
    for k in range(count):
        image, truth = phantom(k, shape=SHAPE)
        bits = np.where(truth > 0, 1 << np.maximum(truth - 1, 0), 0)
        bits[truth == 2] |= 1  # the second organ lies over the first
        write_png(root / "JSRT/images" / f"j{k}.png", grey(image))
        write_png(root / "JSRT/masks" / f"j{k}.png", bits)
    return open_splits(JsrtData(root=str(root), references=2, cases=2, training=2))


def volumes(root: Path, count: int = 5) -> Splits:
    """A folder as of the hippocampus set: NIfTI of different shapes, away from the origin, axes flipped."""
    for k in range(count):
        image, truth = phantom(k, shape=(24 + k % 3, 26, 25))
        affine = np.diag([-1.5, 1.0, 2.0, 1.0])
        affine[:3, 3] = [10 + k, -4, 7]
        write_nifti(root / "Task04_Hippocampus/imagesTr" / f"h{k}.nii.gz", image, affine)
        write_nifti(root / "Task04_Hippocampus/labelsTr" / f"h{k}.nii.gz", truth.clip(0, 2).astype(np.uint8), affine)
    return open_splits(HippocampusData(root=str(root), references=2, cases=2, training=1))


def labelled_sets(root: Path, count: int) -> None:
    """Folders as of JSRT and of the hippocampus set with so many images, all the same."""
    radiographs(root, 6)
    volumes(root, 5)
    for pattern in ("JSRT/*/j0.png", "Task04_Hippocampus/*/h0.nii.gz"):
        for file in list(root.glob(pattern)):
            for k in range(6, count):
                (file.parent / file.name.replace("0", str(k), 1)).write_bytes(file.read_bytes())


def command(verb: str, *words: str, directory: Path) -> tuple[Result, dict[str, Any]]:
    """Result and JSON of a command that makes a run."""
    result = CliRunner().invoke(app, [verb, *words, "--json", "--run-dir", str(directory)])
    return result, json.loads(result.stdout)


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
