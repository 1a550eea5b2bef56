"""Registrations of other libraries, as a user of each would call them, in the place of a classifier of reverse classification."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from paperbench.rca.cases import Image, normalised
from paperbench.rca.scoring import ReferenceLabels

Array = np.ndarray[Any, Any]
Carry = Callable[[Array], Array]
"""A mask of the image -> the same in the frame of the reference."""


class Peer(ABC):
    """Registers the image to one reference after the other, and carries its masks over."""

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """See `ReverseClassifier`."""
        for reference in references:
            try:
                carry = self.register(image, reference)
                maps = {
                    name: torch.from_numpy(np.rint(carry(mask)).astype(np.int64)) for name, mask in image.masks.items()
                }
            except RuntimeError as error:
                yield ReferenceLabels(reference=reference.name, maps={}, failure=str(error))
            else:
                yield ReferenceLabels(reference=reference.name, maps=maps)

    @abstractmethod
    def register(self, image: Image, reference: Image) -> Carry:
        """Return what carries masks over. Raises RuntimeError where the library fails."""


class Elastix(Peer):
    """Elastix's default affine and B-spline stages of four resolutions, the latter with `iterations` each."""

    def __init__(self, iterations: int) -> None:
        self.itk: Any = importlib.import_module("itk")
        self.parameters = self.itk.ParameterObject.New()
        affine = self.parameters.GetDefaultParameterMap("affine", 4)
        elastic = self.parameters.GetDefaultParameterMap("bspline", 4)
        elastic["MaximumNumberOfIterations"] = [str(iterations)]
        for stage in (affine, elastic):
            self.parameters.AddParameterMap(stage)

    def register(self, image: Image, reference: Image) -> Carry:
        """See `Peer`."""
        fixed, moving = (self._image(normalised(each.intensities), each) for each in (reference, image))
        _, found = self.itk.elastix_registration_method(
            fixed, moving, parameter_object=self.parameters, log_to_console=False
        )
        for stage in range(found.GetNumberOfParameterMaps()):
            found.SetParameter(stage, "FinalBSplineInterpolationOrder", "0")

        def carry(mask: Array) -> Array:
            drawn = self.itk.transformix_filter(self._image(mask, image), found, log_to_console=False)
            return self.itk.array_from_image(drawn)

        return carry

    def _image(self, array: Array, image: Image) -> Any:
        converted = self.itk.image_from_array(np.ascontiguousarray(array, np.float32))
        converted.SetSpacing([float(value) for value in reversed(image.spacing)])
        return converted


class Ants(Peer):
    """SyN of ANTs with its default affine part."""

    def __init__(self) -> None:
        self.ants: Any = importlib.import_module("ants")

    def register(self, image: Image, reference: Image) -> Carry:
        """See `Peer`."""
        fixed, moving = (self._image(normalised(each.intensities), each) for each in (reference, image))
        found = self.ants.registration(fixed=fixed, moving=moving, type_of_transform="SyN", random_seed=1)

        def carry(mask: Array) -> Array:
            drawn = self.ants.apply_transforms(
                fixed, self._image(mask, image), found["fwdtransforms"], interpolator="nearestNeighbor"
            )
            return drawn.numpy()

        return carry

    def _image(self, array: Array, image: Image) -> Any:
        return self.ants.from_numpy(np.ascontiguousarray(array, np.float32), spacing=tuple(map(float, image.spacing)))


class Dipy(Peer):
    """SyN of DIPY by local cross-correlation after an affine part by mutual information, with the settings of its tutorials.

    The coarsest level is left out where an image would be smaller there than the window of the correlation, which DIPY refuses.
    """

    def __init__(self) -> None:
        self.affine: Any = importlib.import_module("dipy.align.imaffine")
        self.warp: Any = importlib.import_module("dipy.align.imwarp")
        self.metrics: Any = importlib.import_module("dipy.align.metrics")
        self.transforms: Any = importlib.import_module("dipy.align.transforms")

    def register(self, image: Image, reference: Image) -> Carry:
        """See `Peer`."""
        fixed, moving = (np.asarray(normalised(each.intensities), np.float64) for each in (reference, image))
        frames = [np.diag([*map(float, each.spacing), 1.0]) for each in (reference, image)]
        kind = self.transforms.AffineTransform2D if fixed.ndim == 2 else self.transforms.AffineTransform3D
        linear = self.affine.AffineRegistration(
            metric=self.affine.MutualInformationMetric(nbins=32), level_iters=[1000, 100, 50], verbosity=0
        )
        begun = linear.optimize(fixed, moving, kind(), None, static_grid2world=frames[0], moving_grid2world=frames[1])
        iterations = [50, 50, 20] if min(fixed.shape + moving.shape) // 4 > 9 else [50, 20]
        elastic = self.warp.SymmetricDiffeomorphicRegistration(
            self.metrics.CCMetric(fixed.ndim), level_iters=iterations
        )
        elastic.verbosity = 0
        found = elastic.optimize(
            fixed, moving, static_grid2world=frames[0], moving_grid2world=frames[1], prealign=begun.affine
        )
        return lambda mask: found.transform(np.asarray(mask, np.float64), interpolation="nearest")
