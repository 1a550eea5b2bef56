"""Errors of registration settings on the references: each left out in turn, with degraded masks of known quality, scored by others.

The choice depends on what the references and their masks hold alone: not on their names and order, nor on the seed of the run. It
is stored with the transforms, so that it is made once for a set of references. At most `LEFT_OUT` references are left out, each
scored by at most `OTHERS`, with `MASKS` masks: the cost does not grow with larger sets.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from paperbench.engine.files import explain_os_errors, write_json
from paperbench.engine.run import Run
from paperbench.engine.store import content_key
from paperbench.rca.atlas import VERSION, Atlas
from paperbench.rca.cases import RECORDED, Image, ReferenceSelection, reason, with_degraded, without_itself
from paperbench.rca.config import ReferenceConfig, RegistrationConfig
from paperbench.rca.evaluation import write_table
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.scoring import FOLDER, CaseResult, read_result, score_masks, write_result
from paperbench.rca.settings import (
    FEWEST,
    KEYS,
    LEAST_GAIN,
    Choice,
    Errors,
    Settings,
    Trial,
    choice_from,
    free_keys,
    initial_settings,
    search,
    search_steps,
)

LEFT_OUT: Final = 8
OTHERS: Final = 8
MASKS: Final = 8
CHOICE_VERSION: Final = 2
"""Part of the key of a stored choice; increased when the search changes its results."""
FILE: Final = "registration.csv"
COLUMNS: Final = ("step", *KEYS, "mae", "gain", "standard_error", "accepted")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A reference with degraded masks, and the references that score it."""

    image: Image
    others: tuple[Image, ...]


class LeftOutSet:
    """The references that are left out, and the key of everything that their errors depend on.

    select: of `ReferenceConfig`; `nearest` scores by the most similar references, all else by any.
    """

    def __init__(
        self,
        references: Sequence[Image],
        labels: Labels,
        registration: RegistrationConfig,
        reference: ReferenceConfig,
        *,
        masks: int = MASKS,
    ) -> None:
        self.labels = labels
        self.registration = registration
        self.masks = min(masks, MASKS)
        self.dims = references[0].intensities.ndim
        self.reference = replace(reference, count=min(reference.count, OTHERS))
        self._by_key = dict(sorted(((_content(each), each) for each in references), key=lambda pair: pair[0]))

    @property
    def key(self) -> str:
        """Return the key of the choice."""
        labels = [self.labels.kind, list(self.labels.values)]
        nearest = self.reference.count if self.reference.select == "nearest" else 0
        recipe = [CHOICE_VERSION, VERSION, LEFT_OUT, OTHERS, self.masks, labels, nearest, asdict(self.registration)]
        return content_key(json.dumps([recipe, list(self._by_key)], sort_keys=True))

    def __len__(self) -> int:
        return min(LEFT_OUT, len(self._by_key))

    def name(self, index: int) -> str:
        """Return the name of a reference that is left out."""
        return self._by_key[list(self._by_key)[index]].name

    def case(self, index: int) -> LeftOut:
        """Return a reference that is left out, with its masks; the same for the same content."""
        keys = list(self._by_key)
        own = self._by_key[keys[index]]
        masks = with_degraded(replace(own, name=keys[index]), self.labels, masks=self.masks, seed=0).masks
        others = [self._by_key[key] for key in (*keys[index + 1 :], *keys[:index])]
        others, _ = without_itself(own, others)
        if self.reference.select == "nearest":
            others = ReferenceSelection(self.reference, seed=0).select(own, others)
        return LeftOut(image=replace(own, masks=masks), others=tuple(others[:OTHERS]))

    def score(self, settings: Settings, index: int, device: torch.device | str) -> CaseResult:
        """Return the Dice scores of the masks of one reference under the settings."""
        case = self.case(index)
        levels, samples = settings.apply(self.registration, self.dims), self.registration.samples
        atlas = Atlas(levels, labels=self.labels, samples=samples, device=device)
        began = time.perf_counter()
        try:
            result = score_masks(case.image, case.others, atlas, self.labels, ["dsc"])
        except RECORDED as error:
            result = CaseResult(case=case.image.name, problems={"": reason(error)})
        return replace(result, seconds=time.perf_counter() - began)

    def choose(self, measure: Callable[[Settings], Errors]) -> Choice:
        """Return the choice; the initial settings where there is nothing to choose, or too few references."""
        initial = initial_settings(self.registration, self.dims)
        steps = search_steps(self.registration)
        if not steps or (len(self) < FEWEST and not self.registration.choose_stiffness):
            return Choice(settings=initial)
        return search(initial, steps, measure)


def _content(image: Image) -> str:
    assert image.truth is not None
    recipe: Any = [list(image.intensities.shape), list(image.spacing), image.physical]
    return content_key(recipe, image.intensities.astype(np.float32), image.truth.astype(np.int64))


def error_of(result: CaseResult | None) -> float:
    """Return the mean absolute error of the best scores of one image; NaN where there are none."""
    predictions = [predict(mask, Rule()) for mask in result.masks] if result else []
    errors = [abs(each.best - each.mask.real) for each in predictions]
    known = [error for error in errors if math.isfinite(error)]
    return sum(known) / len(known) if known else math.nan


def choose_in_memory(left_out: LeftOutSet, device: torch.device | str) -> Choice:
    """Return the choice without a run: nothing is written."""

    def measure(settings: Settings) -> Errors:
        return np.array([error_of(left_out.score(settings, index, device)) for index in range(len(left_out))])

    return left_out.choose(measure)


# --- in a run ---------------------------------------------------------------------------------------------------------


def choose_settings(left_out: LeftOutSet, run: Run, folder: Path | None) -> Choice:
    """Return the choice of a run: that of an earlier run in `folder` (of the transforms), or made now, resumable after each image.

    Writes `registration.csv` and reports what was chosen, on which evidence, in which time.
    """
    place = None if folder is None else folder / "settings" / f"{left_out.key}.json"
    choice = run.ranks.on_main(lambda: _load(place))
    earlier = choice is not None
    if choice is None:
        choice = left_out.choose(lambda settings: _measured(left_out, settings, run))
        seconds = sum(result.seconds for trial in choice.trials for result in _results(left_out, trial.settings, run))
        choice = replace(choice, seconds=seconds)

    def record() -> None:
        if place is not None and not earlier and choice.trials:
            with explain_os_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, asdict(choice))
        trials = choice.trials or (Trial(step="defaults", settings=choice.settings, mae=math.nan, accepted=True),)
        write_table(run.directory.path / FILE, COLUMNS, map(row_of, trials))
        for line in describe(choice, left_out, earlier=earlier):
            run.reporter.message(line)

    run.ranks.on_main(record)
    return choice


def _group(settings: Settings) -> str:
    return f"choosing-{content_key(asdict(settings))[:16]}"


def _measured(left_out: LeftOutSet, settings: Settings, run: Run) -> Errors:
    """Return the errors under the settings; each rank scores its part, and results of earlier sessions are read."""
    ranks, folder, total = run.ranks, run.directory.path / FOLDER, len(left_out)
    for step in range(-(-total // ranks.world)):
        run.raise_if_stopped()
        index = step * ranks.world + ranks.rank
        if index < total and read_result(folder, _group(settings), left_out.name(index)) is None:
            write_result(folder, _group(settings), left_out.score(settings, index, run.device))
        done = min(total, (step + 1) * ranks.world)
        run.reporter.progress("choosing registration settings", done, total, {})
    ranks.any(False)  # every rank's files are written before any rank reads them
    return np.array([error_of(result) for result in _results(left_out, settings, run)])


def _results(left_out: LeftOutSet, settings: Settings, run: Run) -> list[CaseResult]:
    folder, group = run.directory.path / FOLDER, _group(settings)
    found = (read_result(folder, group, left_out.name(index)) for index in range(len(left_out)))
    return [CaseResult(case="") if result is None else result for result in found]


def _load(place: Path | None) -> Choice | None:
    """Return a stored choice; None where there is none, or the file is damaged: the choice is then made again."""
    try:
        return None if place is None else choice_from(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# --- what is said -----------------------------------------------------------------------------------------------------


def describe(choice: Choice, left_out: LeftOutSet, *, earlier: bool = False) -> list[str]:
    """Return the choice and its evidence in lines for people."""
    if not choice.trials:
        why = "registration.choose=false"
        if free_keys(left_out.registration):
            why = f"{len(left_out)} references: choosing needs {FEWEST}"
        elif left_out.registration.choose:
            why = "all are given"
        return [f"registration settings ({why}): {choice.settings.overrides()}"]
    first = choice.trials[0]
    made = "chosen on the references by an earlier run" if earlier else "chosen on the references"
    lines = [
        f"registration settings {made}: mean absolute error {choice.mae:.4f} on degraded masks of {choice.images} references, each "
        f"left out in turn, defaults {first.mae:.4f}; {len(choice.trials)} trials in {choice.seconds:.0f} s ({FILE}); to fix them: "
        f"registration.choose=false {choice.settings.overrides()}"
    ]
    for trial in choice.trials[1:]:
        if trial.accepted:
            lines.append(
                f"  {trial.step}: {trial.settings.overrides()}: error less by {trial.gain:.4f}, standard error "
                f"{trial.standard_error:.4f}"
            )
    if len(lines) == 1:
        lines.append(
            f"  nothing was clearly better than the defaults (95 % by Student's t, and {LEAST_GAIN:.0%} of the error)"
        )
    return lines


def row_of(trial: Trial) -> Mapping[str, Any]:
    """Return one line of `registration.csv`; empty fields stand for values that are not defined."""

    def text(value: float) -> str:
        return f"{value:.6f}" if math.isfinite(value) else ""

    settings = {key: f"{value:g}" for key, value in asdict(trial.settings).items()}
    numbers = {key: text(getattr(trial, key)) for key in ("mae", "gain", "standard_error")}
    return {"step": trial.step, **settings, **numbers, "accepted": "yes" if trial.accepted else ""}


def choice_metrics(choice: Choice) -> dict[str, float]:
    """Return the choice as metrics of `results.json`."""
    out = {f"registration/{key}": value for key, value in asdict(choice.settings).items()}
    if choice.trials:
        out |= {
            "registration/mae": choice.mae,
            "registration/default_mae": choice.trials[0].mae,
            "registration/trials": len(choice.trials),
        }
    return {key: value for key, value in out.items() if math.isfinite(value)}
