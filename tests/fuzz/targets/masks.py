"""Volumes, masks, idx and MATLAB files, manifests, scores and logits: what a checksum protects is the same or refused."""

from __future__ import annotations

import gzip
import io
import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import scipy.io
import torch
from PIL import Image

from paperbench.data import frey, mnist
from paperbench.data.image_sets import ImageSet
from paperbench.data.volumes import read_image, read_labels
from paperbench.distill.batches import Images
from paperbench.distill.teachers import StoredLogits, load_teacher
from paperbench.rca import folders, scores_task
from paperbench.rca.config import RcaEstimate, RcaScores
from tests.data.test_mnist import idx
from tests.fuzz.damage import Rng, damaged_bytes, damaged_numbers, damaged_text, pick
from tests.fuzz.runs import Read

_LABELS = np.random.default_rng(0).integers(0, 4, (9, 8, 7)).astype(np.uint8)
_GREY = np.random.default_rng(1).integers(0, 256, (20, 24)).astype(np.uint8)


# --- volumes and pictures ---------------------------------------------------------------------------------------------


@cache
def _nifti(kind: str) -> bytes:
    array = {"labels": _LABELS, "float": _LABELS.astype(np.float32) * 1.5, "slope": _LABELS.astype(np.int16)}[kind]
    image = nibabel.Nifti1Image(array, np.diag([1, 1.5, 2, 1]))
    if kind == "slope":
        image.header.set_slope_inter(0.5, 0)
    return image.to_bytes()


def _volume(rng: Rng, folder: Path) -> None:
    kind, packed = pick(rng, ["labels", "float", "slope"]), bool(rng.integers(2))
    content = _nifti(kind)
    path = folder / ("v.nii.gz" if packed else "v.nii")
    if packed and rng.integers(4):
        path.write_bytes(damaged_bytes(gzip.compress(content, mtime=0), rng))
        sealed = True
    else:  # damage from before the packing: to the header alone, since nothing protects the voxels
        header = damaged_bytes(content[:352], rng)[:352].ljust(352, b"\0")
        path.write_bytes(gzip.compress(header + content[352:]) if packed else header + content[352:])
        sealed = False
    found = (read_labels if kind == "labels" else read_image)(path)
    assert np.isfinite(found.array).all()
    assert found.affine is not None
    assert np.isfinite(found.affine).all()
    assert all(length > 0 for length in found.spacing)
    assert found.array.size == _LABELS.size or found.array.ndim == 2
    if sealed:
        wanted = {"labels": _LABELS, "float": _LABELS * 1.5, "slope": _LABELS * 0.5}[kind]
        np.testing.assert_array_equal(found.array, wanted)


@cache
def _picture(form: str) -> bytes:
    content = io.BytesIO()
    options = {"compression": "tiff_deflate"} if form == "tiff" else {}
    Image.fromarray(_GREY).save(content, format=form, **options)
    return content.getvalue()


def _mask(form: str, rng: Rng, folder: Path) -> None:
    path = folder / f"m.{form}"
    path.write_bytes(damaged_bytes(_picture(form), rng))
    found = read_image(path) if form == "jpeg" else pick(rng, [read_image, read_labels])(path)
    assert found.array.ndim == 2
    assert np.isfinite(found.array).all()
    if form == "png":
        np.testing.assert_array_equal(found.array, _GREY)


# --- arrays -----------------------------------------------------------------------------------------------------------


def _idx(rng: Rng, folder: Path) -> None:
    images, labels = np.arange(12 * 784, dtype=np.int64).reshape(12, 28, 28).astype(np.uint8), np.arange(12) % 10
    contents = {"images-idx3-ubyte": idx(images), "labels-idx1-ubyte": idx(labels.astype(np.uint8))}
    victim, packed = pick(rng, list(contents)), bool(rng.integers(2))
    for name, content in contents.items():
        whole = gzip.compress(content, mtime=0) if packed else content
        (folder / f"train-{name}{'.gz' if packed else ''}").write_bytes(
            damaged_bytes(whole, rng) if name == victim else whole
        )
    found = mnist.load(folder, "train")
    assert len(found.images) == len(found.labels) > 0
    assert found.images.shape[1:] == (28, 28)
    assert 0 <= int(found.labels.min()) <= int(found.labels.max()) < 10
    if packed:
        np.testing.assert_array_equal(found.images.numpy(), images)
        np.testing.assert_array_equal(found.labels.numpy(), labels)


@cache
def _matlab(compressed: bool) -> bytes:
    content = io.BytesIO()
    pixels = np.arange(560 * 6, dtype=np.int64).reshape(560, 6).astype(np.uint8)
    scipy.io.savemat(content, {"ff": pixels}, do_compression=compressed)
    return content.getvalue()


def _mat(rng: Rng, folder: Path) -> None:
    path = folder / "frey_rawface.mat"
    path.write_bytes(damaged_bytes(_matlab(bool(rng.integers(2))), rng))
    frames = frey.read(path)
    assert frames.shape[1:] == (28, 20)
    assert frames.dtype == np.uint8


@cache
def _images(count: int) -> Images:
    pixels = torch.from_numpy(np.random.default_rng(count).integers(0, 256, (count, 4, 4)).astype(np.uint8))
    classes = tuple("abc")
    return Images.of(
        ImageSet(images=pixels, labels=torch.arange(count) % 3, classes=classes, name="made up"), torch.device("cpu")
    )


@cache
def _stored(form: str) -> bytes:
    train, test = _images(240), _images(210)
    logits, test_logits = (
        (np.random.default_rng(0).normal(size=(len(images), 3)) + 6 * np.eye(3)[images.labels.numpy()]).astype(
            np.float32
        )
        for images in (train, test)
    )
    content = io.BytesIO()
    if form == "npy":
        np.save(content, logits)
    elif form == "npz":
        np.savez(content, logits=logits, test_logits=test_logits)
    else:
        torch.save({"logits": torch.from_numpy(logits), "images": train.fingerprint}, content)
    return content.getvalue()


def _logits(rng: Rng, folder: Path) -> None:
    form = pick(rng, ["npy", "npz", "pt"])
    path = folder / f"l.{form}"
    path.write_bytes(damaged_bytes(_stored(form), rng))
    found = load_teacher(path, train=_images(240), test=_images(210), mean=0.0, std=1.0)
    assert isinstance(found, StoredLogits)
    for part, count in ((found.train, 240), (found.test, 210)):
        assert part is None or (part.shape == (count, 3) and bool(torch.isfinite(part).all()))


# --- lists ------------------------------------------------------------------------------------------------------------


_MANIFEST = "role,case,image,segmenter,mask,truth\n" + "".join(
    f"{role},{role[0]}{k},i{k}.png,{'' if role == 'reference' else 'net'},m{k}.png,{'m1.png' if k else ''}\n"
    for role in ("case", "reference", "calibration")
    for k in range(1, 3)
)


def _damaged(text: str, rng: Rng) -> bytes:
    damage = pick(rng, [damaged_text, damaged_numbers, None])
    if damage is None:
        return damaged_bytes(text.encode(), rng)
    return damage(text, rng).encode("utf-8", "surrogatepass")


def _manifest(rng: Rng, folder: Path) -> None:
    for k in range(1, 3):
        for letter in "im":
            (folder / f"{letter}{k}.png").write_bytes(_picture("png"))
    (folder / "list.csv").write_bytes(_damaged(_MANIFEST, rng))
    config = RcaEstimate(manifest=str(folder / "list.csv"))
    source = folders.find(config)
    assert source.references > 0
    read: Any = source.read()
    assert read.cases
    for case in read.cases:
        image = case.load()
        assert image.masks or image.problems


_SCORES = "case,label,reference,score,truth\n" + "".join(
    f"c{case},{label},r{reference},{0.1 * case + 0.01 * reference + 0.3:.3f},{0.1 * case + 0.32:.3f}\n"
    for case in range(5)
    for label in ("liver", "spleen")
    for reference in range(3)
)


def _scores(rng: Rng, folder: Path) -> None:
    (folder / "s.csv").write_bytes(_damaged(_SCORES, rng))
    config = RcaScores(scores=str(folder / "s.csv"), metric=pick(rng, ["dsc", "hd95", None]))
    scores_task.plan(config)
    found = scores_task._load(config)
    for mask in found.masks:
        for value in (*(score for _, score in mask.scores), mask.real):
            assert math.isnan(value) or 0 <= value <= found.metric.upper + 1e-6


TARGETS: dict[str, Read] = {
    "nifti": _volume,
    "mask png": partial(_mask, "png"),
    "mask tiff": partial(_mask, "tiff"),
    "image jpeg": partial(_mask, "jpeg"),
    "idx": _idx,
    "mat": _mat,
    "manifest": _manifest,
    "rca scores": _scores,
    "logits": _logits,
}
