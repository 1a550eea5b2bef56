"""What an evaluator found out about one class, kept so that it can be summed up again over other draws of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """One class's D detections in I images by falling score, at T overlaps that a match may need.

    scores: (D,) float64; images: (D,) int64, the image of each; hits: (T, D) bool, whether it found an object; counted: (T, D)
    bool, False for detections that count as neither right nor wrong (a crowd, a difficult object), which are no hits;
    objects: (I,) int64, objects to be found in each image.
    """

    scores: NDArray[np.float64]
    images: NDArray[np.int64]
    hits: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.int64]
