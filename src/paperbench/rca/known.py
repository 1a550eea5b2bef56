"""Masks of known quality to calibrate on: labelled images, or degraded masks of the references, each left out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError
from paperbench.rca.cases import Case, Picture
from paperbench.rca.generated import degraded_map
from paperbench.rca.labels import Labels

DEGRADE: Final = 122


def left_out(references: Sequence[Picture], labels: Labels, *, masks: int, seed: int) -> tuple[Case, ...]:
    """Each reference as a case with `masks` masks of every quality, the best its own; it never judges itself.

    The masks follow from the seed and the reference's name, not from its place among the others.
    """
    if len(references) < 2:
        raise ConfigError(
            "calibration.kind=references and registration.choose_stiffness leave each reference out in turn and need two of them; "
            "with one, choose calibration.kind=none and leave registration.choose_stiffness empty"
        )

    def case(reference: Picture) -> Case:
        return Case(name=reference.name, load=lambda: with_degraded(reference, labels, masks=masks, seed=seed))

    return tuple(map(case, references))


def with_degraded(reference: Picture, labels: Labels, *, masks: int, seed: int) -> Picture:
    """The reference with masks whose severities are spread evenly from 0 to 1, each at random within its share."""
    assert reference.truth is not None
    made = {}
    for k in range(masks):
        rng = np.random.default_rng(hashed(seed, DEGRADE, k, *reference.name.encode()))
        severity = 0.0 if k == 0 else (k - 1 + rng.uniform()) / max(1, masks - 1)
        made[f"degraded-{k:03d}"] = degraded_map(reference.truth, labels, severity, rng)
    return replace(reference, masks=made)


def others(references: Sequence[Picture], name: str) -> list[Picture]:
    """All references but the one of that name."""
    return [reference for reference in references if reference.name != name]
