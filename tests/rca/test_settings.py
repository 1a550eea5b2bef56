"""The search for registration settings, on errors that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from paperbench.rca.config import RegistrationConfig
from paperbench.rca.registration import PLANAR
from paperbench.rca.settings import (
    Choice,
    Errors,
    Settings,
    choice_from,
    free_keys,
    gain_of,
    initial_settings,
    search,
    search_steps,
)

NOISE = np.random.default_rng(0).normal(0, 0.001, 8)


def chosen(error: Callable[[Settings], float], config: RegistrationConfig | None = None, spread: float = 1.0) -> Choice:
    """The choice where every image has about the given error, with other deviations for other settings."""
    config = config or RegistrationConfig()

    def measure(settings: Settings) -> Errors:
        shift = int(1000 * (settings.contrast + settings.window + settings.resolution))
        return error(settings) + spread * np.roll(NOISE, shift)

    return search(initial_settings(config, 2), search_steps(config), measure)


def distance(wanted: Settings) -> Callable[[Settings], float]:
    """An error that grows with the distance from wanted settings, each key by as much."""

    def error(settings: Settings) -> float:
        far = [abs(settings.contrast - wanted.contrast) > 0.01, settings.window != wanted.window]
        far += [settings.focus != wanted.focus, settings.resolution != wanted.resolution]
        return 0.05 + 0.01 * sum(far) + 0.01 * abs(math.log(settings.stiffness / wanted.stiffness))

    return error


def test_the_best_of_every_setting_is_found() -> None:
    wanted = Settings(contrast=0.13, window=0.0, focus=0.1, resolution=2.0, stiffness=0.27)
    found = chosen(distance(wanted))
    assert found.settings == wanted
    assert found.images == 8
    assert len(found.trials) == len({trial.settings for trial in found.trials}) <= 18
    assert found.mae == pytest.approx(0.05, abs=0.001)


def test_settings_that_are_not_clearly_better_leave_the_defaults() -> None:
    def slightly(settings: Settings) -> float:
        return 0.05 - 0.0015 * (settings.contrast > 0)

    found = chosen(slightly)
    assert found.settings == initial_settings(RegistrationConfig(), 2)
    assert [trial.accepted for trial in found.trials] == [True] + [False] * (len(found.trials) - 1)
    noisy = chosen(lambda settings: 0.05 - 0.004 * (settings.contrast > 0), spread=20.0)
    assert noisy.settings == found.settings


def test_what_differs_by_chance_seldom_leaves_the_defaults() -> None:
    """Eleven candidates whose errors have the same mean: of 100 searches most keep the defaults, and those by a limit that one
    standard error would not be."""

    def changed(seed: int) -> bool:
        def measure(settings: Settings) -> Errors:
            values = np.array([*asdict(settings).values()], np.float64)
            rng = np.random.default_rng([seed, *map(int, values.view(np.uint32))])
            return 0.05 + rng.normal(0, 0.03, 8)

        config = RegistrationConfig()
        return search(initial_settings(config, 2), search_steps(config), measure).settings != initial_settings(
            config, 2
        )

    assert sum(map(changed, range(100))) < 40


@pytest.mark.parametrize("images", [3, 5, 8])
def test_a_gain_is_clear_at_the_95_percent_of_students_t(images: int) -> None:
    before, deviations = np.full(images, 0.5), np.linspace(-1, 1, images)
    error = deviations.std(ddof=1) / math.sqrt(images)
    quantile = {3: 2.920, 5: 2.132, 8: 1.895}[images]  # of a table, one side, n - 1 degrees of freedom
    config = RegistrationConfig(window=2.0, focus=0.05, resolution=1.0, stiffness=0.03)
    for factor, accepted in ((0.99, False), (1.01, True)):

        def measure(settings: Settings, factor: float = factor) -> Errors:
            gain = factor * quantile * error * 0.1 + 0.1 * deviations
            return before - gain * (settings.contrast > 0)

        found = search(initial_settings(config, 2), search_steps(config), measure)
        assert (found.settings.contrast > 0) == accepted


@pytest.mark.parametrize("key", ["contrast", "window", "focus", "resolution", "stiffness"])
def test_a_given_key_is_kept_and_not_searched(key: str) -> None:
    wanted = Settings(contrast=0.13, window=0.0, focus=0.1, resolution=2.0, stiffness=0.27)
    config = replace(RegistrationConfig(), **{key: 0.5})
    found = chosen(distance(wanted), config)
    assert {getattr(trial.settings, key) for trial in found.trials} == {0.5}
    assert asdict(found.settings) == {**asdict(wanted), key: 0.5}


def test_nothing_is_searched_without_choice_and_own_levels_keep_their_resolution() -> None:
    assert search_steps(RegistrationConfig(choose=False)) == ()
    assert "resolution" not in free_keys(RegistrationConfig(affine=((4, 5),)))
    steps = search_steps(RegistrationConfig(choose=False, choose_stiffness=(0.1, 1.0)))
    assert [step.name for step in steps] == ["stiffness"]


def test_a_resolution_divides_the_reductions_of_the_levels() -> None:
    finer = replace(initial_settings(RegistrationConfig(), 2), resolution=2.0).apply(RegistrationConfig(), 2)
    assert finer.affine == ((4, 25), (2, 15))
    assert finer.bspline == ((2, 7, 30), (1, 16, 40))
    assert finer.side == PLANAR.side
    assert finer.refined(8).affine == ((1, 25), (1, 15))


def test_two_images_are_no_evidence_and_a_failed_one_counts_as_the_largest_error() -> None:
    gain, error = gain_of(np.array([0.5, 0.4, np.nan]), np.array([0.1, 0.1, np.nan]))
    assert gain == pytest.approx(0.35)
    assert error == math.inf
    gain, error = gain_of(np.array([0.1, 0.1, 0.1]), np.array([0.0, 0.0, np.nan]))
    assert gain == pytest.approx((0.1 + 0.1 - 0.9) / 3)
    assert math.isfinite(error)


def test_a_choice_is_read_back() -> None:
    found = chosen(distance(Settings(contrast=0.13, window=0.0, focus=0.1, resolution=2.0, stiffness=0.27)))
    again = choice_from(asdict(found))
    assert again.settings == found.settings
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in found.trials]
