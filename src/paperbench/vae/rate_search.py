"""The rate of the optimizer by the paper's rule: of several, the best on the training set in the first iterations (section 5).

With `optim.lr=auto` a run begins with one short training for each of `rate_search.rates`, from its own first weights, with its own
order of images and noise: what the run itself would do with that rate. They are stages of the run, with checkpoints and names in
the metric log of their own. What they found is recorded in `checkpoints/rates.json`, and the run then begins with the best, as if
its configuration had named it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paperbench.engine.files import write_atomic
from paperbench.engine.run import Run
from paperbench.engine.stages import stage
from paperbench.engine.trainer import Trainer
from paperbench.errors import TrainingError
from paperbench.vae.config import VaeTrain

AUTO: Final = "auto"
"""`optim.lr` of a run that chooses its rate."""

FOLDER = "rates"
"""Of the stages' checkpoints, which are removed when a rate is chosen; with `.json`, the record of what was found."""

_MEASURES = (
    ("train/importance_bound", 1),
    ("train/bound", 1),
    ("train/squared_error", -1),
    ("train/loss", -1),
)
"""What a rate is judged by, the first that there is, and the sign that makes it better if larger. Monte Carlo EM has no bound: its
loss is the mean over the last quarter of the stage."""


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """The chosen rate, and what the search adds to the metrics of the run."""

    rate: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """How far a rate came: the value of `measure`; None where loss, gradient or value were not finite."""

    measure: str
    value: float | None

    @property
    def merit(self) -> float:
        return -math.inf if self.value is None else dict(_MEASURES)[self.measure] * self.value


def search_rate(config: VaeTrain, run: Run, make_trainer: Callable[[float, Run], Trainer]) -> RateSearch:
    """Return the best rate of `config.rate_search`; where the run has recorded one, that, without training again.

    `make_trainer(rate, view)` builds the trainer of a stage, of `search_steps(config)` steps, whose evaluation measures the
    training set. Raises `Stopped` after saving, and `TrainingError` where no rate gives finite numbers.
    """
    record = run.checkpoints.directory / f"{FOLDER}.json"
    found = run.ranks.on_main(lambda: _read(record, run.config_hash))
    if found is None:
        found = {rate: _try(rate, config, run, make_trainer) for rate in config.rate_search.rates}
        run.ranks.on_main(lambda: _record(record, run, found))
    best = max(found, key=lambda rate: found[rate].merit)
    seen = f"after {search_steps(config) * config.train.batch_size:,} samples each"
    compared = ", ".join(_described(rate, item) for rate, item in found.items())
    if found[best].value is None:
        raise TrainingError(
            f"optim.lr=auto: no rate of rate_search.rates is finite {seen}: {compared}; name smaller ones"
        )
    run.reporter.message(f"optim.lr={best:g} is the best on the training set {seen}: {compared}")
    chosen = {f"{FOLDER}/chosen": best}
    run.log.write(0, chosen)  # the curve of a run that is not at its end says it too
    metrics = {f"{FOLDER}/{rate}/{item.measure}": item.value for rate, item in found.items() if item.value is not None}
    return RateSearch(rate=best, metrics={**chosen, **metrics})


def search_steps(config: VaeTrain) -> int:
    """Return the steps that each rate is tried for."""
    return -(-config.rate_search.samples // config.train.batch_size)


def _try(rate: float, config: VaeTrain, run: Run, make_trainer: Callable[[float, Run], Trainer]) -> _Found:
    view = stage(
        run,
        f"rate {rate:g}",
        total=config.train.steps,
        checkpoints=run.checkpoints.directory / FOLDER / str(rate),
        log_prefix=f"{FOLDER}/{rate}/",
    )
    try:
        values = make_trainer(rate, view).fit()
    except TrainingError as error:
        view.reporter.message(f"not chosen: {error}")
        return _Found(measure=_MEASURES[-1][0], value=None)
    measure = next(name for name, _ in _MEASURES if name in values)
    return _Found(measure=measure, value=values[measure] if math.isfinite(values[measure]) else None)


def _described(rate: float, found: _Found) -> str:
    return f"{rate:g} not finite" if found.value is None else f"{rate:g} {found.measure} {found.value:.6g}"


# --- the record -------------------------------------------------------------------------------------------------------


def _record(file: Path, run: Run, found: Mapping[float, _Found]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rates = [{"rate": rate, "measure": item.measure, "value": item.value} for rate, item in found.items()]
    write_atomic(file, json.dumps({"config_hash": run.config_hash, "rates": rates}, indent=1))
    shutil.rmtree(run.checkpoints.directory / FOLDER, ignore_errors=True)
    run.directory.update_status(step=0, saved=False)  # of the training itself, nothing is saved yet


def _read(file: Path, config_hash: str) -> dict[float, _Found] | None:
    """Return what was found under this configuration; None where there is no such record, so that the rates are tried again."""
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        if recorded["config_hash"] != config_hash:
            return None
        return {item["rate"]: _Found(measure=item["measure"], value=item["value"]) for item in recorded["rates"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
