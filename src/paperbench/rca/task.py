"""Task `rca-estimate`: quality of masks without ground truth, by reverse classification accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.rca import datasets, folders, sitk
from paperbench.rca.atlas import schedule
from paperbench.rca.cases import CaseSource, check_leave_one_out
from paperbench.rca.config import RcaEstimate, RegistrationConfig
from paperbench.rca.estimation import estimate, first_threshold
from paperbench.rca.settings import FEWEST, free_keys


def plan(config: RcaEstimate) -> Mapping[str, str]:
    """Describe masks and method; no image is opened.

    Raises ConfigError and DataError for what cannot be done, before anything is written.
    """
    return describe(config, find(config))


def describe(config: RcaEstimate, source: CaseSource) -> Mapping[str, str]:
    """Return the facts of `plan` for any source of cases."""
    if config.classifier == "atlas-sitk":
        sitk.require()
    if config.classifier != "atlas" and replace(config.registration, choose=True) != RegistrationConfig():
        raise ConfigError(
            f"registration: belongs to classifier=atlas; classifier={config.classifier} has none of its settings"
        )
    first_threshold(config)
    if config.calibration.kind == "references" or config.registration.choose_stiffness:
        check_leave_one_out(source.references)
    select = config.reference.select
    used = (
        "all references" if select == "all" else f"{min(config.reference.count, source.references)} {select} references"
    )
    labels = ", ".join(source.labels) or "those of the references"
    return {
        "data": source.description,
        "masks": f"{', '.join(source.segmenters)}; labels {labels}",
        "classifier": f"{_described_classifier(config, source.dims, source.references)}; {used}",
        "calibration": config.calibration.kind,
        **({"remark": "; ".join(source.remarks)} if source.remarks else {}),
    }


def _described_classifier(config: RcaEstimate, dims: int | None, references: int) -> str:
    if dims is None:
        return config.classifier
    if config.classifier != "atlas":
        return f"{config.classifier}, {dims}-D"
    levels = schedule(config.registration, dims)
    steps = sum(steps for _, steps in levels.affine) + sum(steps for _, _, steps in levels.bspline)
    chosen = config.registration.choose and references >= FEWEST and free_keys(config.registration)
    return f"atlas, {dims}-D, {steps} steps, {'settings chosen on the references' if chosen else 'settings given or default'}"


def find(config: RcaEstimate) -> CaseSource:
    """Return references and cases of the user's files if any are named, else of `data`."""
    own = [key for key in ("masks", "truth", "images", "manifest") if getattr(config, key)]
    own += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    if config.calibration.images and config.calibration.kind != "labelled":
        raise ConfigError("calibration.images is given: calibration.kind=labelled uses it, or leave it out")
    return folders.find(config) if own else datasets.find(config)


def run(config: RcaEstimate, run: Run) -> dict[str, float]:
    """Score every case that has no result yet; see `engine.task.Task`. Raises DataError when none could be scored."""
    return estimate(config, find(config).read(), run)
