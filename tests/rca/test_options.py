"""Every key of the method changes it, under its own name; each split and each seed is its own."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paperbench.config.compose import compose
from paperbench.rca import atlas, datasets, estimation, folders, quality, settings_choice
from paperbench.rca.atlas import Atlas, schedule
from paperbench.rca.config import PhantomData, ReferenceConfig, RegistrationConfig
from paperbench.rca.estimation import CaseRunner, build_classifier, calibration_cases
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Prediction, Rule
from paperbench.rca.scoring import CaseResult, MaskScores
from paperbench.rca.segmenters import factory
from paperbench.rca.segmenters.config import ForestModel
from paperbench.rca.settings import Choice, Settings, Trial
from paperbench.rca.settings_choice import LeftOutSet
from tests.rca.made import make_image
from tests.rca.test_splits_and_options import LABELS, REFERENCES, a_run, case_set


class _CaughtError(Exception):
    pass


def changed(config: Any, key: str, value: Any) -> Any:
    section, _, rest = key.partition(".")
    return replace(config, **{section: changed(getattr(config, section), rest, value) if rest else value})


def config_of(*overrides: str) -> Any:
    return compose("rca", ["scale=smoke", *overrides]).config


REGISTRATION: dict[str, Any] = {
    "affine": ((3, 7),), "bspline": ((2, 5, 9),), "resolution": 2.0, "stiffness": 0.5, "contrast": 0.25, "focus": 0.25,
    "window": 3.0, "stride": 3,
}  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("key", list(REGISTRATION))
def test_every_key_of_the_registration_is_in_its_schedule(key: str, dims: int) -> None:
    base = schedule(RegistrationConfig(), dims)
    found = schedule(RegistrationConfig(**{key: REGISTRATION[key]}), dims)
    assert found != base
    if key != "resolution":
        assert getattr(found, key) == REGISTRATION[key]
    others = {field.name for field in fields(RegistrationConfig)} - set(REGISTRATION)
    assert others == {"choose", "samples", "choose_stiffness"}


def test_chosen_settings_are_those_of_the_registration(tmp_path: Path) -> None:
    chosen = Settings(contrast=0.25, window=3.0, focus=0.125, resolution=2.0, stiffness=0.5)
    initial = Settings(contrast=0.0, window=0.0, focus=0.0, resolution=1.0, stiffness=0.1)
    choice = Choice(settings=chosen, trials=(Trial(step="defaults", settings=initial, mae=1.0),))
    made: Any = build_classifier(config_of("registration.samples=3"), case_set(), a_run(tmp_path), choice)
    assert (made.levels.contrast, made.levels.window, made.levels.focus, made.levels.stiffness) == (
        0.25,
        3.0,
        0.125,
        0.5,
    )
    assert made.samples == 3


def test_other_classifiers_have_their_seed_and_steps(tmp_path: Path) -> None:
    forest: Any = build_classifier(config_of("classifier=forest", "seed=9"), case_set(), a_run(tmp_path), None)
    net: Any = build_classifier(
        config_of("classifier=cnn", "seed=9", "cnn_steps=17"), case_set(), a_run(tmp_path), None
    )
    assert (forest.seed, net.seed, net.steps) == (9, 9, 17)


def test_voxels_are_sampled_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def propagate(masks: Any, grid: Any, *, labels: Any, samples: int) -> Any:
        seen.append((labels, samples))
        raise _CaughtError

    monkeypatch.setattr(atlas, "propagate_labels", propagate)
    found = SimpleNamespace(grid=lambda *_: None)
    monkeypatch.setattr(Atlas, "transforms", lambda *_: [found])
    made = Atlas(schedule(RegistrationConfig(), 2), labels=LABELS, samples=3)
    with pytest.raises(_CaughtError):
        list(made.segment(make_image(9, masks=1), [REFERENCES[0]]))
    assert seen == [(LABELS, 3)]


def test_weights_are_near_the_organs_of_the_reference_alone() -> None:
    """The image's own mask is what is judged: it must not influence the registration."""
    made = Atlas(schedule(RegistrationConfig(focus=0.1), 2), labels=LABELS)
    image, blank = REFERENCES[0], replace(REFERENCES[0], truth=None)
    assert torch.equal(made._prepare(image).weights, made._prepare(blank).weights)
    assert made._prepare(image).weights.std() == 0
    assert made._prepare(image, is_reference=True).weights.std() > 0


# --- the choice of the settings ---------------------------------------------------------------------------------------


def left_out(*references: Any, labels: Labels = LABELS, masks: int = 4, **changes: Any) -> LeftOutSet:
    registration = RegistrationConfig(**changes.pop("registration", {}))
    return LeftOutSet(references or REFERENCES, labels, registration, ReferenceConfig(**changes), masks=masks)


@pytest.mark.parametrize("select", ["all", "nearest"])
def test_no_reference_judges_itself_in_the_choice(select: Any) -> None:
    own = left_out(select=select, count=2)
    for index in range(len(own)):
        case = own.case(index)
        assert case.others
        for other in case.others:
            assert other.name != own.name(index)
            assert not np.array_equal(other.intensities, case.image.intensities)
        assert len(case.image.masks) == 4


def test_a_choice_is_kept_under_everything_that_it_depends_on() -> None:
    keys = [
        own.key
        for own in (
            left_out(), left_out(*REFERENCES[:3]), left_out(*REFERENCES[:3], make_image(77)), left_out(masks=5),
            left_out(registration={"samples": 3}), left_out(registration={"stride": 3}), left_out(select="nearest", count=2),
            left_out(labels=Labels("values", (1, 2), ("a", "b"))),
        )
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert left_out(*reversed(REFERENCES)).key == left_out().key


def test_trials_of_the_choice_have_the_samples_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def made(levels: Any, *, samples: int, **_: Any) -> Any:
        seen.append(samples)
        raise _CaughtError

    monkeypatch.setattr(settings_choice, "Atlas", made)
    own = left_out(registration={"samples": 3})
    with pytest.raises(_CaughtError):
        own.score(settings_choice.initial_settings(own.registration, 2), 0, "cpu")
    assert seen == [3]


def test_the_choice_has_the_masks_of_the_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[int] = []
    monkeypatch.setattr(estimation, "choose_settings", lambda own, *_: seen.append(own.masks))
    estimation.choose_registration(config_of("calibration.degraded=5"), case_set(), a_run(tmp_path))
    assert seen == [5]


# --- cases ------------------------------------------------------------------------------------------------------------


def test_degraded_masks_follow_the_number_and_the_seed_of_the_run() -> None:
    asked = ["calibration.kind=references", "calibration.degraded=3"]
    one, again, other = (
        calibration_cases(config_of(*asked, f"seed={seed}"), case_set())[0].load() for seed in (0, 0, 1)
    )
    assert len(one.masks) == 3
    assert all(np.array_equal(one.masks[name], again.masks[name]) for name in one.masks)
    assert any(not np.array_equal(one.masks[name], other.masks[name]) for name in one.masks)


def test_references_are_selected_by_the_seed_of_the_run(tmp_path: Path) -> None:
    unused: Any = None
    for seed in (3, 4):
        runner = CaseRunner(config_of(f"seed={seed}", "reference.select=random"), case_set(), unused, a_run(tmp_path))
        assert (runner.selection.seed, runner.selection.config.select) == (seed, "random")


def test_no_image_is_in_two_splits_and_seeds_are_their_own() -> None:
    config = PhantomData(references=3, cases=4, calibration=2, training=5)
    found = datasets.split(config, 20)
    numbers = [number for own in found.values() for number in own]
    assert len(set(numbers)) == len(numbers) == 14
    assert datasets.split(replace(config, split_seed=1), 20) != found
    assert datasets.split(replace(config, data_seed=1), 20) == found
    one, other = (datasets.open_set(replace(config, data_seed=seed)).read(0) for seed in (0, 1))
    assert not np.array_equal(one.intensities, other.intensities)


def test_each_image_has_masks_of_its_own_quality() -> None:
    config = config_of("data=phantoms", "segmenters.masks=2")
    source = datasets.open_set(config.data)
    fixed = replace(source, read=lambda number: source.read(0))
    found = [datasets.with_masks(config, fixed, number) for number in (0, 1)]
    masks = [mask for image in found for mask in image.masks.values()]
    assert len({mask.tobytes() for mask in masks}) == 4
    reseeded = datasets.with_masks(changed(config, "seed", 5), fixed, 0)
    assert not np.array_equal(reseeded.masks["deformed-1"], found[0].masks["deformed-1"])


@pytest.mark.parametrize("resample", [True, False])
def test_masks_are_resampled_if_asked(monkeypatch: pytest.MonkeyPatch, resample: bool) -> None:
    seen: list[Any] = []

    def read(entry: Any, *, resample: bool, segmenters: Any = ()) -> Any:
        seen.append((entry.name, resample, segmenters))
        return REFERENCES[0]

    monkeypatch.setattr(folders, "read", read)
    case, calibrating, reference = (SimpleNamespace(name=name) for name in ("case", "calibrating", "reference"))
    files: Any = SimpleNamespace(
        references=[reference], cases=[case], calibration=[calibrating], segmenters=("s",), remarks=[]
    )
    monkeypatch.setattr(folders, "describe", lambda files: "")
    found = folders.load(replace(config_of(), resample=resample), files)
    found.cases[0].load()
    found.calibration[0].load()
    assert seen == [("reference", resample, ()), ("case", resample, ("s",)), ("calibrating", resample, ())]


# --- tables -----------------------------------------------------------------------------------------------------------


def predictions() -> list[Prediction]:
    """Of four masks the best score, the mean and the calibrated one lie on different sides of 0.5."""
    rows = ((0.9, 0.4, 0.3), (0.9, 0.6, 0.3), (0.3, 0.2, 0.9), (0.9, 0.9, 0.9))
    return [
        Prediction(
            mask=MaskScores(case=f"c{k}", segmenter="s", label="a", metric="dsc", scores=(("r", best),), real=best),
            best=best, mean=mean, calibrated=calibrated, low=0.0, high=1.0, reference="r", defined=1,
        )
        for k, (best, mean, calibrated) in enumerate(rows)
    ]  # fmt: skip


@pytest.mark.parametrize(("on", "flagged"), [("max", 1), ("mean", 2), ("calibrated", 2)])
def test_masks_are_flagged_by_what_is_asked(tmp_path: Path, on: str, flagged: int) -> None:
    config = config_of(f"flag_on={on}")
    results = [CaseResult(case=f"c{k}") for k in range(4)]
    for threshold, expected in ((0.5, flagged), (0.95, 4), (None, 0)):
        assert estimation.write_tables(tmp_path, config, {"dsc": predictions()}, results, Rule(), threshold) == expected


def test_metrics_are_at_the_threshold_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(estimation, "quality_metrics", lambda *_, threshold, **__: seen.append(threshold) or {})
    monkeypatch.setattr(estimation, "write_tables", lambda *_: 0)
    run = a_run(tmp_path)
    runner: Any = SimpleNamespace(run=run)
    results = [CaseResult(case="c", masks=(predictions()[0].mask,), seconds=1.0)]
    estimation.summarise(config_of("threshold=0.5"), runner, results, [])
    assert seen == [0.5]


def test_the_worst_come_first() -> None:
    bad, good = predictions()[2], predictions()[3]
    assert estimation.badness_of(bad, Rule(higher=True)) < estimation.badness_of(good, Rule(higher=True))
    assert estimation.badness_of(good, Rule(higher=False)) < estimation.badness_of(bad, Rule(higher=False))


# --- arrays and segmenters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choose", [True, False])
def test_arrays_have_their_options(monkeypatch: pytest.MonkeyPatch, choose: bool) -> None:
    seen: dict[str, Any] = {}

    def chosen(own: LeftOutSet, device: Any) -> Any:
        seen["choose"] = own.registration.choose
        return settings_choice.initial_settings(own.registration, 2)

    def score(case: Any, known: Any, classifier: Any, labels: Any, metrics: Any) -> CaseResult:
        seen.update(case=case, known=known, metrics=metrics)
        return CaseResult(case="x")

    monkeypatch.setattr(quality, "_chosen", chosen)
    monkeypatch.setattr(quality, "score_masks", score)
    (image, mask), *others = ((np.asarray(known.intensities), np.asarray(known.truth)) for known in REFERENCES[:3])
    quality.estimate_quality(image, mask, others, spacing=(2.0, 0.5), metric="hd", choose=choose)
    assert (seen["choose"], seen["metrics"]) == (choose, ["hd"])
    for case in (seen["case"], *seen["known"]):
        assert (case.spacing, case.physical) == ((2.0, 0.5), True)
    assert seen["case"].truth is None


def test_masks_of_segmenters_are_kept_under_everything_they_depend_on() -> None:
    data = PhantomData(training=3)
    splits: Any = SimpleNamespace(source=SimpleNamespace(dims=2))

    def run(**changes: Any) -> Any:
        return SimpleNamespace(**{"seed": 0, "device": torch.device("cpu"), "precision": "float32", **changes})

    model = ForestModel()
    recipes = [
        factory.recipe_of(model, data, splits, run()), factory.recipe_of(model, data, splits, run(seed=1)),
        factory.recipe_of(model, data, splits, run(precision="bfloat16")),
        factory.recipe_of(model, replace(data, training=4), splits, run()),
        factory.recipe_of(model, replace(data, split_seed=4), splits, run()),
        factory.recipe_of(model, replace(data, data_seed=4), splits, run()),
    ]  # fmt: skip
    assert len({str(recipe) for recipe in recipes}) == len(recipes)
