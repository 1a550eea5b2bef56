"""Which images judge which, in which units, and which options arrive."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paperbench.config.compose import compose
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.rca import estimation
from paperbench.rca.atlas import Atlas, TransformStore, _scale, fingerprint
from paperbench.rca.cases import Case, CaseSet, Image
from paperbench.rca.estimation import rule_of
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Rule, calibrate, predict
from paperbench.rca.registration import PLANAR, Schedule, Transforms
from paperbench.rca.scoring import CaseResult, MaskScores, ReferenceLabels, score_masks
from tests.rca.made import make_image

LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))
REFERENCES = tuple(make_image(k) for k in range(4))


class Copier:
    """A reverse classifier that gives each reference its own truth, moved by a voxel, and notes who judged whom."""

    def __init__(self) -> None:
        self.judged: list[tuple[str, str]] = []

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        for reference in references:
            self.judged.append((image.name, reference.name))
            moved = torch.from_numpy(np.roll(np.asarray(reference.truth), 1, axis=0))
            yield ReferenceLabels(reference=reference.name, maps=dict.fromkeys(image.masks, moved))


def a_run(folder: Path) -> Any:
    return SimpleNamespace(
        ranks=Ranks(), reporter=SilentReporter(), directory=SimpleNamespace(path=folder, figures=folder / "figures"),
        raise_if_stopped=lambda: None, draw=lambda *_, **__: None, device=torch.device("cpu"), seed=0, stop=False,
    )  # fmt: skip


def case_set() -> CaseSet:
    cases = tuple(
        Case(name=f"case-{k}", load=lambda k=k: make_image(9 + k, masks=2, name=f"case-{k}")) for k in range(2)
    )
    return CaseSet(
        labels=LABELS, references=REFERENCES, cases=cases, calibration=(), segmenters=("mask-0",), description=""
    )


def test_no_image_judges_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["calibration.kind=references", "calibration.degraded=3", "classifier=forest"]
    config = compose("rca", ["scale=smoke", *asked]).config
    copier = Copier()
    monkeypatch.setattr(estimation, "build_classifier", lambda *_: copier)
    monkeypatch.setattr(estimation, "summarise", lambda *_: {})
    run = a_run(tmp_path)
    said: list[str] = []
    run.reporter.message = said.append
    estimation.estimate(config, case_set(), run)
    assert copier.judged
    assert not any("this very image" in text for text in said), "a copy was among the references"
    assert all(image != reference for image, reference in copier.judged)
    for image in [reference.name for reference in REFERENCES]:
        own = {reference for judged, reference in copier.judged if judged == image}
        assert own == {reference.name for reference in REFERENCES} - {image}


def simulated(count: int, metric: str, shift: float, name: str) -> CaseResult:
    rng = np.random.default_rng(count)
    masks = tuple(
        MaskScores(
            case=f"{name}{k}", segmenter="s", label="a", metric=metric, real=float(real),
            scores=tuple((f"r{n}", float(real + shift + 0.02 * rng.normal())) for n in range(4)),
        )
        for k, real in enumerate(rng.uniform(0.3, 0.7, count))
    )  # fmt: skip
    return CaseResult(case=name, masks=masks)


def test_calibration_learns_from_calibrating_cases_and_each_metric_has_its_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose("rca", ["scale=smoke", "metrics=[dsc,hd]"]).config
    seen: dict[str, list[Any]] = {"calibrate": [], "predict": [], "metrics": []}

    def noted_calibrate(known: Sequence[MaskScores], rule: Rule) -> Any:
        seen["calibrate"].append(({mask.case[0] for mask in known}, rule))
        return calibrate(known, rule)

    def noted_metrics(predictions: Any, *, rule: Rule, **_: Any) -> dict[str, float]:
        seen["metrics"].append((predictions[0].mask.metric, rule.higher))
        return {}

    monkeypatch.setattr(estimation, "calibrate", noted_calibrate)
    monkeypatch.setattr(estimation, "quality_metrics", noted_metrics)
    monkeypatch.setattr(estimation, "draw_worst", lambda *_: None)
    monkeypatch.setattr(estimation.figures, "scatter", lambda *_, **__: None)

    def both(name: str, count: int) -> list[CaseResult]:
        parts = [simulated(count, metric, 0.1, name) for metric in ("dsc", "hd")]
        return [CaseResult(case=name, masks=parts[0].masks + parts[1].masks)]

    runner: Any = SimpleNamespace(run=a_run(tmp_path))
    estimation.summarise(config, runner, both("t", 8), both("c", 30))
    assert [cases for cases, _ in seen["calibrate"]] == [{"c"}, {"c"}]
    assert [rule.higher for _, rule in seen["calibrate"]] == [True, False]
    assert seen["metrics"] == [("dsc", True), ("hd", False)]


def test_the_levels_of_intervals_arrive() -> None:
    config = compose("rca", ["scale=smoke", "calibration.coverage=0.7", "calibration.low=0.2", "calibration.high=0.8"])
    rule = rule_of(config.config, "hd")
    assert (rule.coverage, rule.low, rule.high, rule.higher, rule.limit) == (0.7, 0.2, 0.8, False, math.inf)


def test_an_interval_of_distances_is_that_of_overlaps_mirrored() -> None:
    """Scores s of which higher is better and 1 - s of which lower is are the same statement."""
    known = simulated(30, "dsc", 0.1, "c").masks
    mirrored = tuple(
        replace(mask, real=1 - mask.real, scores=tuple((name, 1 - score) for name, score in mask.scores))
        for mask in known
    )
    up, down = Rule(higher=True, limit=1.0), Rule(higher=False, limit=1.0)
    for mask, other in zip(known, mirrored, strict=True):
        one, two = predict(mask, up, calibrate(known, up)), predict(other, down, calibrate(mirrored, down))
        assert (two.low, two.high) == pytest.approx((1 - one.high, 1 - one.low))


def spaced(image: Image, spacing: tuple[float, float], shape: tuple[int, int] = (40, 40)) -> Image:
    return replace(image, spacing=spacing, physical=True, intensities=np.zeros(shape, np.float32))


def test_a_reference_twice_as_tall_has_twice_the_extent_along_its_own_axis() -> None:
    tall, plain = spaced(REFERENCES[0], (2.0, 1.0)), spaced(REFERENCES[1], (1.0, 1.0))
    assert _scale(tall, plain).tolist() == [1.0, 2.0]  # the last axis first
    assert _scale(plain, tall).tolist() == [1.0, 0.5]
    assert _scale(spaced(REFERENCES[0], (1.0, 1.0), (40, 120)), plain).tolist() == [3.0, 1.0]


def test_distances_are_in_the_millimetres_of_the_image_they_are_measured_in() -> None:
    case = replace(make_image(9, masks=2), spacing=(3.0, 3.0), physical=True)
    references = [replace(REFERENCES[0], spacing=(0.5, 0.5), physical=True)]
    plain = [REFERENCES[0]]
    found = score_masks(case, references, Copier(), LABELS, ["hd"])
    unit = score_masks(replace(case, spacing=(1.0, 1.0)), plain, Copier(), LABELS, ["hd"])
    for mask, one in zip(found.masks, unit.masks, strict=True):
        assert mask.scores[0][1] == pytest.approx(0.5 * one.scores[0][1])
        assert mask.real == pytest.approx(3.0 * one.real)


@pytest.mark.parametrize("change", ["spacing", "physical", "weights", "image"])
def test_everything_that_registration_sees_is_in_the_fingerprint(change: str) -> None:
    settings: dict[str, Any] = {"spacing": (1.0, 1.0), "physical": True, "weights": np.ones((4, 4))}
    other = {**settings, **{"spacing": {"spacing": (1.0, 2.0)}, "physical": {"physical": False},
                            "weights": {"weights": np.eye(4)}}.get(change, {})}  # fmt: skip
    image = np.zeros((4, 4))
    assert fingerprint(image, **settings) != fingerprint(image + (change == "image"), **other)


@pytest.mark.parametrize("name", [field.name for field in fields(Schedule)])
def test_transforms_are_found_by_the_settings_that_they_were_computed_with(tmp_path: Path, name: str) -> None:
    """A transform of two images, kept for one schedule, is none of another's, nor of the images the other way round."""
    others: dict[str, Any] = {"affine": ((8, 5),), "bspline": ((4, 7, 5),)}
    other = replace(PLANAR, **{name: others[name] if name in others else getattr(PLANAR, name) + 1})
    store = TransformStore(tmp_path, PLANAR)
    store.save("image", "reference", Transforms(torch.eye(2, 3)[None], ()), 0)
    assert TransformStore(tmp_path, PLANAR).load("image", "reference") is not None
    assert TransformStore(tmp_path, other).load("image", "reference") is None
    assert store.load("reference", "image") is None
    assert store.load("image", "other") is None


def test_labels_come_back_on_the_grid_of_the_reference() -> None:
    """Whose shape is not the image's; the same scene at another size keeps its labels where they are."""
    image = make_image(9, masks=1)
    wide = replace(REFERENCES[0], intensities=np.repeat(image.intensities, 2, 1), truth=None)
    made = Atlas(Schedule(affine=((4, 2),), bspline=(), stiffness=0.1))
    (found,) = made.segment(image, [wide])
    expected = np.repeat(image.masks["mask-0"], 2, 1)
    assert found.maps["mask-0"].shape == expected.shape
    assert (found.maps["mask-0"].numpy() == expected).mean() > 0.95
