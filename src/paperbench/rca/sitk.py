"""Reverse classification by SimpleITK, one reference after another: an independent check of the batched registration.

Affine, then a B-spline transform, on the correlation of the intensities; one thread, all voxels and no random sampling, so that a
run is reproducible. Labels are propagated by nearest neighbour, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paperbench.errors import EnvironmentError_
from paperbench.rca.cases import RECORDED, Image, normalised, reason
from paperbench.rca.scoring import ReferenceLabels

if TYPE_CHECKING:
    import SimpleITK

AFFINE_STEPS, BSPLINE_STEPS = 100, 40
MESH = 6


def require() -> None:
    """Raise EnvironmentError_ where SimpleITK is not installed."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise EnvironmentError_(
            "classifier=atlas-sitk needs SimpleITK: pip install 'paperbench[sitk]', or classifier=atlas"
        ) from error


class SitkAtlas:
    """Implements `ReverseClassifier`. With more than one of `threads` it is faster and not reproducible to the last digit; with a
    `share` of the voxels below 1, on a regular lattice, it is faster too."""

    def __init__(self, *, threads: int = 1, share: float = 1.0) -> None:
        self.threads = threads
        self.share = share

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """See `ReverseClassifier`."""
        moving = to_sitk(normalised(image.intensities), image)
        masks = {name: to_sitk(mask, image) for name, mask in image.masks.items()}
        for reference in references:
            try:
                fixed = to_sitk(normalised(reference.intensities), reference)
                transform = register(fixed, moving, threads=self.threads, share=self.share)
                maps = {name: torch.from_numpy(_propagated(mask, fixed, transform)) for name, mask in masks.items()}
                yield ReferenceLabels(reference=reference.name, maps=maps)
            except RECORDED as error:
                yield ReferenceLabels(reference=reference.name, maps={}, failure=reason(error))


def to_sitk(array: np.ndarray, image: Image) -> SimpleITK.Image:
    """Return an array as an image of SimpleITK with the spacing of `image`; the order of the axes is reversed."""
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    converted = sitk.GetImageFromArray(array.astype(np.int32 if array.dtype.kind in "iu" else np.float32))
    converted.SetSpacing([float(value) for value in reversed(image.spacing)])
    return converted


def register(fixed: SimpleITK.Image, moving: SimpleITK.Image, *, threads: int = 1, share: float = 1.0) -> Any:
    """Return the transform from `fixed` to `moving`: centred, affine, then a B-spline."""
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


def _propagated(mask: SimpleITK.Image, fixed: SimpleITK.Image, transform: Any) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813 - the name its own documents use

    propagated = sitk.Resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(propagated).astype(np.int64)
