"""From the best score to what it means: curves that never fall, learnt from masks of known quality.

Isotonic regression follows any shape, and with two dozen masks it also follows their noise: predictions that were good come out
worse. So a straight line and no change at all stand beside it, and what predicts images best that it has not seen is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Curve = Callable[[float], float]
Fit = Callable[[Values, Values, float], Callable[[Values], Values]]

FOLDS: Final = 10
"""Images are left out in so many groups, or one by one where there are fewer."""


def learnt(best: Sequence[float], real: Sequence[float], images: Sequence[str], *, limit: float) -> Curve:
    """The curve from `best` scores to `real` values, both from 0 to `limit`, that predicts left-out `images` with the least mean
    absolute error. Masks of one image are left out together; with one image alone it is isotonic regression.

    Isotonic regression must do better than the others by more than one standard error, as Breiman et al., Classification and
    Regression Trees, 1984, choose among trees: of curves that predict alike, the simpler one.
    """
    x, y = np.asarray(best, np.float64), np.asarray(real, np.float64)
    names = {name: place for place, name in enumerate(dict.fromkeys(images))}
    image = np.array([names[name] for name in images])
    fitted = (_chosen(x, y, image, limit) if len(names) > 1 else _isotonic)(x, y, limit)
    return lambda value: float(fitted(np.array([value]))[0])


def _chosen(x: Values, y: Values, image: NDArray[np.int64], limit: float) -> Fit:
    errors = {fit: _left_out(fit, x, y, image % FOLDS, limit) for fit in (_unchanged, _line, _isotonic)}
    simple = min((_unchanged, _line), key=lambda fit: float(errors[fit].mean()))
    gain = np.bincount(image, errors[simple] - errors[_isotonic]) / np.bincount(image)
    return _isotonic if gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)) else simple


def _left_out(fit: Fit, x: Values, y: Values, fold: NDArray[np.int64], limit: float) -> Values:
    """The absolute error of each mask by what was fitted without its fold."""
    errors = np.empty_like(x)
    for number in np.unique(fold):
        out = fold == number
        errors[out] = np.abs(fit(x[~out], y[~out], limit)(x[out]) - y[out])
    return errors


def _isotonic(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    from sklearn.isotonic import IsotonicRegression

    upper: Any = limit if math.isfinite(limit) else None
    model = IsotonicRegression(y_min=0.0, y_max=upper, increasing=True, out_of_bounds="clip").fit(x, y)
    return lambda values: np.asarray(model.predict(values))


def _line(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    """Least squares; level where the line would fall."""
    apart = x - x.mean()
    spread = float(apart @ apart)
    slope = max(0.0, float(apart @ y) / spread) if spread > 0 else 0.0
    return lambda values: np.clip(y.mean() + slope * (values - x.mean()), 0.0, limit)


def _unchanged(x: Values, y: Values, limit: float) -> Callable[[Values], Values]:
    return lambda values: np.clip(values, 0.0, limit)
