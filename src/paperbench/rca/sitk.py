"""Reverse classification by SimpleITK, one reference after the other: an independent second opinion on the batched registration.

Affine, then a B-spline transform, on the correlation of the intensities; one thread, all voxels and no random sampling, so that a
run is reproducible. Labels are carried by nearest neighbour, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paperbench.errors import EnvironmentError_
from paperbench.rca.cases import RECORDED, Picture, normalised, reason
from paperbench.rca.classifier import Drawn

if TYPE_CHECKING:
    import SimpleITK

AFFINE_STEPS, BSPLINE_STEPS = 100, 40
MESH = 6


def require() -> None:
    """Raises EnvironmentError_ where SimpleITK is not installed."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise EnvironmentError_(
            "classifier=atlas-sitk needs SimpleITK: pip install 'paperbench[sitk]', or classifier=atlas"
        ) from error


class SitkAtlas:
    """Implements `ReverseClassifier`. More than one of `threads` is faster, and not reproducible to the last digit; a `share` of
    the voxels below 1, on a regular lattice, is faster too."""

    def __init__(self, *, threads: int = 1, share: float = 1.0) -> None:
        self.threads = threads
        self.share = share

    def draw(self, picture: Picture, references: Sequence[Picture]) -> Iterator[Drawn]:
        """See `ReverseClassifier`."""
        moving = as_image(normalised(picture.image), picture)
        masks = {name: as_image(mask, picture) for name, mask in picture.masks.items()}
        for reference in references:
            try:
                fixed = as_image(normalised(reference.image), reference)
                transform = registered(fixed, moving, threads=self.threads, share=self.share)
                maps = {name: torch.from_numpy(_carried(mask, fixed, transform)) for name, mask in masks.items()}
                yield Drawn(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield Drawn(reference=reference.name, maps={}, failure=reason(error))


def as_image(array: np.ndarray, picture: Picture) -> SimpleITK.Image:
    """An array as SimpleITK's image with the picture's spacing; the first axis of the array is the last of the image."""
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    image = sitk.GetImageFromArray(array.astype(np.int32 if array.dtype.kind in "iu" else np.float32))
    image.SetSpacing([float(value) for value in reversed(picture.spacing)])
    return image


def registered(fixed: SimpleITK.Image, moving: SimpleITK.Image, *, threads: int = 1, share: float = 1.0) -> Any:
    """The transform from `fixed` to `moving`: centred, affine, then a B-spline."""
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    dims = fixed.GetDimension()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)  # sums of several threads come in any order
    try:
        begin = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.AffineTransform(dims), sitk.CenteredTransformInitializerFilter.GEOMETRY
        )
        affine = _method(fixed, (4, 2), AFFINE_STEPS, share)
        affine.SetInitialTransform(begin, inPlace=False)
        first = affine.Execute(fixed, moving)
        elastic = _method(fixed, (2, 1), BSPLINE_STEPS, share)
        elastic.SetMovingInitialTransform(first)
        elastic.SetInitialTransform(sitk.BSplineTransformInitializer(fixed, [MESH] * dims), inPlace=False)
        second = elastic.Execute(fixed, moving)
        return sitk.CompositeTransform([first, second])
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _method(
    fixed: SimpleITK.Image, factors: tuple[int, int], steps: int, share: float
) -> SimpleITK.ImageRegistrationMethod:
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    if share < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share)
    method.SetShrinkFactorsPerLevel([min(factor, max(1, min(fixed.GetSize()) // 8)) for factor in factors])
    method.SetSmoothingSigmasPerLevel([factor / 2 for factor in factors])
    method.SetOptimizerAsLBFGSB(numberOfIterations=steps)
    if steps == AFFINE_STEPS:
        method.SetOptimizerAsGradientDescent(learningRate=1.0, numberOfIterations=steps)
        method.SetOptimizerScalesFromPhysicalShift()
    return method


def _carried(mask: SimpleITK.Image, fixed: SimpleITK.Image, transform: Any) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    drawn = sitk.Resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(drawn).astype(np.int64)
