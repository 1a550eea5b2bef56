"""Choice of the registration settings by their errors: sequential, coarse, from the defaults of the dimension.

Every step varies one or two settings and keeps the others. A candidate replaces the present settings where its error is clearly
smaller: the gain over the images exceeds `LEAST_GAIN` of the error, and 0 by Student's t test of pairs, one-sided at `CONFIDENCE`.
(By one standard error, the rule of Breiman et al., 1984, most searches among equal candidates leave the defaults.) So settings that
are equal on the references stay the defaults, and the choice is stable. Nothing here registers anything: `settings_choice` measures
the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.rca.atlas import schedule
from paperbench.rca.config import RegistrationConfig
from paperbench.rca.registration import Schedule

CONTRASTS: Final = (0.0, 0.13)
WINDOWS: Final = (0.0, 2.0, 4.0)
FOCUSES: Final = (0.0, 0.05, 0.1)
RESOLUTIONS: Final = (0.5, 1.0, 2.0)
STIFFNESS_FACTOR: Final = 3.0
"""Stiffness is tried a factor higher and lower, and further in the direction that is clearly better."""
LEAST_GAIN: Final = 0.05
"""Least gain for which settings are changed, as a fraction of the present error."""
CONFIDENCE: Final = 0.95
"""Confidence that a gain is one, of Student's t on one side."""
FEWEST: Final = 3
"""Fewest images with errors on which anything is chosen."""
WORST: Final = 1.0
"""Error of an image that the present settings can score and a candidate cannot: the largest of a Dice score."""

Errors = NDArray[np.float64]
"""(N,) mean absolute error of each image, NaN where it could not be scored."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that are chosen; see `RegistrationConfig`."""

    contrast: float
    window: float
    focus: float
    resolution: float
    stiffness: float

    def apply(self, config: RegistrationConfig, dims: int) -> Schedule:
        """Return the levels of the configuration with these settings."""
        return schedule(replace(config, **asdict(self)), dims)

    def overrides(self) -> str:
        """Return the settings as overrides that fix them."""
        return " ".join(f"registration.{key}={value:g}" for key, value in asdict(self).items())


KEYS: Final = tuple(field.name for field in fields(Settings))


def initial_settings(config: RegistrationConfig, dims: int) -> Settings:
    """Return the settings of the configuration, the defaults where it has none."""
    levels = schedule(config, dims)
    return Settings(
        contrast=levels.contrast,
        window=levels.window,
        focus=levels.focus,
        resolution=1.0 if config.resolution is None else config.resolution,
        stiffness=levels.stiffness,
    )


def free_keys(config: RegistrationConfig) -> frozenset[str]:
    """Return the settings that the configuration leaves open; none with `choose=false`. Own levels fix the resolution."""
    if not config.choose:
        return frozenset()
    fixed = {key for key in KEYS if getattr(config, key) is not None}
    if config.affine or config.bspline:
        fixed.add("resolution")
    if config.choose_stiffness:
        fixed.add("stiffness")
    return frozenset(KEYS) - fixed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Settings that were tried. gain: mean decrease of the error against the settings of before the step, `standard_error` its
    standard error over the images; NaN for the first trial. `accepted`: they became the present settings."""

    step: str
    settings: Settings
    mae: float
    gain: float = math.nan
    standard_error: float = math.nan
    accepted: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings with which registration is done, and the trials that led to them, the initial settings first.

    images: number of references that were left out. seconds: of all trials.
    """

    settings: Settings
    trials: tuple[Trial, ...] = ()
    images: int = 0
    seconds: float = 0.0

    @property
    def mae(self) -> float:
        """Error of the chosen settings; NaN where nothing was tried."""
        return next((trial.mae for trial in self.trials if trial.settings == self.settings), math.nan)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the search. candidates: other settings than the present ones. rounds: repeated as long as one is accepted.
    clearly: a candidate must be clearly better; otherwise the smallest error is taken."""

    name: str
    candidates: Callable[[Settings], Sequence[Settings]]
    rounds: int = 1
    clearly: bool = True


def search_steps(config: RegistrationConfig) -> tuple[Step, ...]:
    """Return the steps over the settings that the configuration leaves open: the similarity first, on which the others depend."""
    free = free_keys(config)
    grids: dict[str, Mapping[str, Sequence[float]]] = {
        "similarity": {"contrast": CONTRASTS, "window": WINDOWS},
        "focus": {"focus": FOCUSES},
        "resolution": {"resolution": RESOLUTIONS},
    }
    steps = []
    for name, grid in grids.items():
        open_grid = {key: values for key, values in grid.items() if key in free}
        if open_grid:
            steps.append(Step(name=name, candidates=lambda current, grid=open_grid: list(_grid(current, grid))))
    if "stiffness" in free:
        steps.append(Step(name="stiffness", candidates=_stiffnesses, rounds=3))
    if config.choose_stiffness:
        values = config.choose_stiffness
        steps.append(
            Step(
                name="stiffness",
                candidates=lambda current: [replace(current, stiffness=value) for value in values],
                clearly=False,
            )
        )
    return tuple(steps)


def _grid(current: Settings, grid: Mapping[str, Sequence[float]]) -> Iterator[Settings]:
    for values in product(*grid.values()):
        yield replace(current, **dict(zip(grid, values, strict=True)))


def _stiffnesses(current: Settings) -> list[Settings]:
    values = (current.stiffness * STIFFNESS_FACTOR, current.stiffness / STIFFNESS_FACTOR)
    return [replace(current, stiffness=float(f"{value:.6g}")) for value in values]  # back again is the same number


def search(initial: Settings, steps: Sequence[Step], measure: Callable[[Settings], Errors]) -> Choice:
    """Return the settings that the steps lead to, and all trials. `measure` is called once for each settings."""
    known: dict[Settings, Errors] = {}

    def errors_of(settings: Settings) -> Errors:
        if settings not in known:
            known[settings] = measure(settings)
        return known[settings]

    current, errors = initial, errors_of(initial)
    trials = [Trial(step="defaults", settings=initial, mae=mean_error(errors), accepted=True)]
    tried = {initial}
    for step in steps:
        for _ in range(step.rounds):
            options = [each for each in step.candidates(current) if each not in tried or not step.clearly]
            found = [(each, errors_of(each), *gain_of(errors, errors_of(each))) for each in options]
            tried.update(options)
            least = LEAST_GAIN * mean_error(errors)
            allowed = [
                one for one in found if not step.clearly or one[2] > max(limit_of(errors, one[1], one[3]), least)
            ]
            best = min(allowed, key=lambda one: (mean_error(one[1]), options.index(one[0])), default=None)
            trials += [
                Trial(
                    step=step.name,
                    settings=each,
                    mae=mean_error(own),
                    gain=gain,
                    standard_error=error,
                    accepted=best is not None and each == best[0],
                )
                for each, own, gain, error in found
            ]
            if best is None:
                break
            current, errors = best[0], best[1]
    return Choice(settings=current, trials=tuple(trials), images=int(np.isfinite(errors).sum()))


def mean_error(errors: Errors) -> float:
    """Return the mean over the images that were scored; infinite where none was."""
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else math.inf


def gain_of(before: Errors, after: Errors) -> tuple[float, float]:
    """Return the mean decrease of the error and its standard error, over the images that either could score.

    With fewer than `FEWEST` images the standard error is infinite: nothing is clear.
    """
    either = _either(before, after)
    gains = np.nan_to_num(before[either], nan=WORST) - np.nan_to_num(after[either], nan=WORST)
    if len(gains) < FEWEST:
        return float(gains.mean()) if len(gains) else math.nan, math.inf
    return float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains)))


def limit_of(before: Errors, after: Errors, standard_error: float) -> float:
    """Return the gain above which it is clear: the quantile of Student's t in standard errors."""
    from scipy.special import stdtrit

    freedom = int(_either(before, after).sum()) - 1
    return float(stdtrit(freedom, CONFIDENCE)) * standard_error if freedom > 0 else math.inf


def _either(before: Errors, after: Errors) -> NDArray[np.bool_]:
    return np.isfinite(before) | np.isfinite(after)


def choice_from(content: Mapping[str, Any]) -> Choice:
    """Return a choice from its `asdict`. Raises KeyError, TypeError and ValueError for anything else."""

    def trial_from(values: Mapping[str, Any]) -> Trial:
        numbers = {
            key: math.nan if values[key] is None else float(values[key]) for key in ("mae", "gain", "standard_error")
        }
        settings = Settings(**values["settings"])
        return Trial(step=str(values["step"]), settings=settings, accepted=bool(values["accepted"]), **numbers)

    trials = tuple(map(trial_from, content["trials"]))
    return Choice(
        settings=Settings(**content["settings"]),
        trials=trials,
        images=int(content["images"]),
        seconds=float(content["seconds"]),
    )
