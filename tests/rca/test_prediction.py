"""Maximum, mean, isotonic calibration and split-conformal intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from paperbench.rca.evaluation import agreement, auroc, equal_to_truth, pearson, quality_metrics
from paperbench.rca.prediction import NONE, Rule, calibrate, predict
from paperbench.rca.scoring import MaskScores


def mask(scores: list[float], real: float = math.nan, *, label: str = "a", case: str = "c") -> MaskScores:
    named = tuple((f"r{k}", score) for k, score in enumerate(scores))
    return MaskScores(case=case, segmenter="s", label=label, metric="dsc", scores=named, real=real)


def simulated(count: int, seed: int, *, label: str = "a", bias: float = 0.1) -> list[MaskScores]:
    """Masks whose references score about the real value, the best of them above it."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        real = rng.uniform(0.2, 0.9)
        scores = np.clip(real + bias * rng.normal(0.3, 1, 8), 0, 1)
        made.append(mask(scores.tolist(), real, label=label, case=f"{label}{k}"))
    return made


def test_the_maximum_the_mean_and_what_is_undefined() -> None:
    found = predict(mask([0.5, math.nan, 0.9, 0.9]), Rule())
    assert (found.best, found.reference, found.defined) == (0.9, "r2", 3)
    assert found.mean == pytest.approx(2.3 / 3)
    assert math.isnan(found.calibrated)
    assert math.isnan(found.low)
    nothing = predict(mask([math.nan, math.nan]), Rule())
    assert math.isnan(nothing.best)
    assert nothing.defined == 0


def test_the_best_distance_is_the_smallest() -> None:
    found = predict(mask([3.0, math.inf, 1.5]), Rule(higher=False, limit=math.inf))
    assert (found.best, found.reference) == (1.5, "r2")
    assert found.mean == math.inf


def test_one_more_reference_never_lowers_the_maximum() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, 12).tolist()
    best = [predict(mask(scores[: k + 1]), Rule()).best for k in range(12)]
    assert best == sorted(best)


def test_calibration_takes_the_bias_out_on_other_masks() -> None:
    calibration = calibrate(simulated(200, 0), Rule())
    held_back = [predict(mask, Rule(), calibration) for mask in simulated(200, 1)]
    raw = np.mean([abs(p.best - p.mask.real) for p in held_back])
    calibrated = np.mean([abs(p.calibrated - p.mask.real) for p in held_back])
    assert calibrated < 0.7 * raw


def test_few_calibrating_masks_do_not_spoil_predictions_that_are_good_already() -> None:
    def near(count: int, seed: int) -> list[MaskScores]:
        rng = np.random.default_rng(seed)
        real = np.clip(rng.beta(5, 1.2, count), 0, 1)
        best = np.clip(real + rng.normal(0.005, 0.02, count), 0, 1)
        return [mask([b], r, case=str(k)) for k, (b, r) in enumerate(zip(best.tolist(), real.tolist(), strict=True))]

    held_back = near(400, 100)
    for seed in range(6):
        calibration = calibrate(near(24, seed), Rule())
        found = [predict(mask, Rule(), calibration) for mask in held_back]
        raw = np.mean([abs(p.best - p.mask.real) for p in found])
        assert np.mean([abs(p.calibrated - p.mask.real) for p in found]) < 1.15 * raw


def test_what_no_line_can_follow_is_followed() -> None:
    rng = np.random.default_rng(0)
    best = rng.uniform(0, 1, 300)
    known = [mask([b], 0.2 if b < 0.5 else 0.9, case=str(k)) for k, b in enumerate(best.tolist())]
    calibration = calibrate(known, Rule())
    assert predict(mask([0.3]), Rule(), calibration).calibrated == pytest.approx(0.2)
    assert predict(mask([0.8]), Rule(), calibration).calibrated == pytest.approx(0.9)


def test_masks_of_one_image_alone_are_calibrated_too() -> None:
    known = [mask([k / 20], k / 40, case="one") for k in range(20)]
    assert predict(mask([0.5]), Rule(), calibrate(known, Rule())).calibrated == pytest.approx(0.25)


def test_the_calibrated_value_rises_with_the_maximum() -> None:
    calibration = calibrate(simulated(60, 0), Rule())
    values = [predict(mask([x]), Rule(), calibration).calibrated for x in np.linspace(0, 1, 21)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_intervals_hold_the_real_value_as_often_as_they_say(coverage: float) -> None:
    rule = Rule(coverage=coverage)
    calibration = calibrate(simulated(400, 2), rule)
    held_back = [predict(mask, rule, calibration) for mask in simulated(1000, 3)]
    inside = np.mean([p.low <= p.mask.real <= p.high for p in held_back])
    assert inside == pytest.approx(coverage, abs=0.06)


def test_the_width_is_the_stated_order_statistic() -> None:
    # Both quantiles of a single score are the score itself: what lies outside is |score - real|.
    errors = [0.01 * k for k in range(1, 20)]
    known = [mask([0.5], 0.5 + error, case=str(k)) for k, error in enumerate(errors)]
    found = predict(mask([0.5]), Rule(coverage=0.9), calibrate(known, Rule(coverage=0.9)))
    assert found.high - 0.5 == pytest.approx(errors[17])  # ceil(20 x 0.9) = 18th of 19
    assert found.low == pytest.approx(0.5 - errors[17])


def test_too_few_masks_give_the_widest_interval() -> None:
    known = [mask([0.5], 0.4, case=str(k)) for k in range(10)]
    found = predict(mask([0.5]), Rule(coverage=0.95), calibrate(known, Rule(coverage=0.95)))
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_label_with_few_masks_is_calibrated_with_all() -> None:
    calibration = calibrate([*simulated(40, 0, label="a"), *simulated(3, 1, label="b")], Rule())
    assert calibration.curve("b") is calibration.curve("")
    assert calibration.curve("a") is not calibration.curve("")
    assert calibration.masks == 43


def test_nothing_is_calibrated_on_masks_without_truth() -> None:
    calibration = calibrate([mask([0.5], case=str(k)) for k in range(30)], Rule())
    assert calibration.masks == 0
    assert calibration.curve("a") is NONE.curve("a") is None


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) > 0.6
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    assert math.isnan(auroc(scores, np.ones(40, bool)))


def test_agreement_counts_what_it_leaves_out() -> None:
    judged = [mask([0.9], 0.8), mask([0.6], 0.75), mask([0.2], 0.3), mask([math.nan], 0.5), mask([0.4])]
    found = agreement([predict(item, Rule()) for item in judged], threshold=0.7, rule=Rule())
    assert found["masks"] == 3
    assert found["mae"] == pytest.approx((0.1 + 0.15 + 0.1) / 3)
    assert found["accuracy@0.7"] == pytest.approx(2 / 3)
    assert found["poor"] == 1
    assert found["failure_auroc"] == 1.0
    assert found["pearson_r"] == pytest.approx(pearson(np.array([0.9, 0.6, 0.2]), np.array([0.8, 0.75, 0.3])))
    everything = quality_metrics([predict(item, Rule()) for item in judged], threshold=0.7, flagged=2, rule=Rule())
    assert everything["rca/undefined"] == 1
    assert everything["rca/predictions"] == 5


def test_a_lost_organ_counts_in_failure_detection_for_distances() -> None:
    rule = Rule(higher=False, limit=math.inf)
    judged = [mask([math.inf], math.inf), mask([1.0], 1.2), mask([2.0], 1.5)]
    found = agreement([predict(item, rule) for item in judged], threshold=3, rule=rule)
    assert (found["masks"], found["finite"], found["poor"]) == (3, 2, 1)
    assert found["mae"] == pytest.approx(0.35)
    assert found["failure_auroc"] == 1.0


def test_masks_that_are_copies_of_their_truth_are_counted() -> None:
    def named(segmenter: str, case: str, real: float) -> MaskScores:
        return replace(mask([0.8, 0.9], real, case=case), segmenter=segmenter)

    masks = [named("copied", case, 1.0) for case in "abc"] + [named("good", case, 1.0) for case in "ab"]
    masks += [named("good", "c", 0.999), named("few", "a", 1.0), named("unknown", "a", math.nan)]
    predictions = [predict(each, Rule()) for each in masks]
    assert equal_to_truth(predictions, 1.0) == {"copied": 3}
    assert equal_to_truth(predictions, None) == {}
