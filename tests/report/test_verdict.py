"""Which word stands beside which number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paperbench.report.published import Published
from paperbench.report.verdict import Departures, Verdict, judge

HIGHER = Published(
    paper="p", table="T", caption="c", row="r", column="mAP", value=69.9, unit="percent", direction="higher",
    sample="s", tolerance=1.2, source="x", metric="voc07/mAP", when={"scale": "paper"}, note="",
)  # fmt: skip
LOWER = replace(HIGHER, direction="lower")
NONE = Departures()
OTHER_DATA = Departures(data=("data.name shapes instead of voc",))
OTHER_SCALE = Departures(scale=("scale=short instead of the published schedule",))
OTHER_SETTINGS = Departures(settings=("lambda 3 instead of 10",))


@pytest.mark.parametrize(
    ("number", "measured", "verdict"),
    [
        (HIGHER, 69.9, Verdict.WITHIN),
        (HIGHER, 71.1, Verdict.WITHIN),
        (HIGHER, 68.7, Verdict.WITHIN),
        (HIGHER, 71.2, Verdict.BETTER),
        (HIGHER, 68.6, Verdict.WORSE),
        (LOWER, 71.2, Verdict.WORSE),
        (LOWER, 68.6, Verdict.BETTER),
        (replace(HIGHER, direction="same"), 71.2, Verdict.OUTSIDE),
        (replace(HIGHER, tolerance=None), 69.9, Verdict.NO_TOLERANCE),
        (HIGHER, None, Verdict.MISSING),
        (None, 69.9, Verdict.NOT_PUBLISHED),
        (None, None, Verdict.MISSING),
    ],
)
def test_runs_that_meet_every_condition(number: Published | None, measured: float | None, verdict: Verdict) -> None:
    assert judge(number, measured, NONE) is verdict


@pytest.mark.parametrize(
    "departures", [OTHER_DATA, OTHER_SCALE, OTHER_DATA | OTHER_SETTINGS, OTHER_SCALE | OTHER_SETTINGS]
)
@pytest.mark.parametrize("measured", [69.9, 0.0, 99.0])
def test_other_data_or_another_scale_is_not_comparable_whatever_the_number(
    departures: Departures, measured: float
) -> None:
    assert judge(HIGHER, measured, departures) is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("tolerance", "measured", "verdict"),
    [(1.2, 69.0, Verdict.DEVIATES_NEAR), (1.2, 60.0, Verdict.DEVIATES_APART), (None, 69.9, Verdict.DEVIATES)],
)
def test_other_settings_deviate(tolerance: float | None, measured: float, verdict: Verdict) -> None:
    assert judge(replace(HIGHER, tolerance=tolerance), measured, OTHER_SETTINGS) is verdict


def test_no_word_of_a_reproduction_stands_beside_anything_else() -> None:
    reproductions = {verdict for verdict in Verdict if verdict.of_reproduction}
    for measured in (None, 0.0, 69.0, 69.9, 99.0):
        for number in (HIGHER, LOWER, replace(HIGHER, tolerance=None), replace(HIGHER, direction="same")):
            for departures in (OTHER_DATA, OTHER_SCALE, OTHER_SETTINGS):
                assert judge(number, measured, departures) not in reproductions
    others = [verdict for verdict in Verdict if not verdict.of_reproduction]
    assert not any("toleran" in verdict for verdict in others)


def test_departures_add_up_and_say_each_thing_once() -> None:
    both = OTHER_DATA | OTHER_DATA | OTHER_SETTINGS
    assert both.sentences == ("data.name shapes instead of voc", "lambda 3 instead of 10")
    assert both.names == "other data, other settings"
    assert NONE.names == ""
