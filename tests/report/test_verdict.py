"""The verdict beside a number, and the departures of a run from the published conditions."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from paperbench.report.layoutfile import DeviationEntry
from paperbench.report.published import Published
from paperbench.report.published_form import Axis
from paperbench.report.verdict import Conditions, Verdict, compare, judge, kind_of, unmet

HIGHER = Published(
    paper="p", table="T", caption="c", row="r", column="mAP", value=69.9, unit="percent", direction="higher",
    sample="s", tolerance=1.2, source="x", metric="voc07/mAP", when={"scale": "paper"},
)  # fmt: skip
LOWER = replace(HIGHER, direction="lower")
NONE = Conditions()
OTHER_DATA = Conditions(data=("data.name shapes instead of voc",))
OTHER_SCALE = Conditions(scale=("scale=short instead of the published schedule",))
OTHER_SETTINGS = Conditions(settings=("lambda 3 instead of 10",))


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
    departures: Conditions, measured: float
) -> None:
    assert judge(HIGHER, measured, departures) is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("tolerance", "measured", "verdict"),
    [
        (1.2, 69.0, Verdict.WITHIN_OTHER_SETTINGS),
        (1.2, 60.0, Verdict.OUTSIDE_OTHER_SETTINGS),
        (None, 69.9, Verdict.NO_TOLERANCE_OTHER_SETTINGS),
    ],
)
def test_other_settings_are_named_in_the_verdict(tolerance: float | None, measured: float, verdict: Verdict) -> None:
    assert judge(replace(HIGHER, tolerance=tolerance), measured, OTHER_SETTINGS) is verdict


def test_a_verdict_about_the_tolerance_names_other_settings_unless_all_conditions_are_met() -> None:
    reproductions = {verdict for verdict in Verdict if verdict.of_reproduction}
    for measured in (None, 0.0, 69.0, 69.9, 99.0):
        for number in (HIGHER, LOWER, replace(HIGHER, tolerance=None), replace(HIGHER, direction="same")):
            for departures in (OTHER_DATA, OTHER_SCALE, OTHER_SETTINGS):
                assert judge(number, measured, departures) not in reproductions
    others = [verdict for verdict in Verdict if not verdict.of_reproduction]
    assert all(verdict.endswith(", other settings") for verdict in others if "toleran" in verdict)


def test_departures_add_up_and_say_each_thing_once() -> None:
    both = OTHER_DATA | OTHER_DATA | OTHER_SETTINGS
    assert both.deviations == ("data.name shapes instead of voc", "lambda 3 instead of 10")
    assert both.departs == "other data, other settings"
    assert NONE.departs == ""


# --- departures -------------------------------------------------------------------------------------------------------


NUMBER = Published(
    paper="p", table="T", caption="c", row="r", column="mAP", value=69.9, unit="percent", direction="higher",
    sample="s", tolerance=1.2, source="x", metric="voc07/mAP",
    when={"scale": "paper", "data.name": "voc", "data.year": "2007", "model.sizes": [128, 256], "model.weight": 10.0},
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "scale": "paper", "seed": 0, "device": "auto", "output": {"root": "outputs"},
    "data": {"name": "voc", "year": "2007", "root": "/a"},
    "model": {"sizes": (128.0, 256.0), "weight": 10.0},
    "train": {"samples": 1000, "log_every": 10},
}  # fmt: skip


def changed(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = config
        for name in parents:
            section = section[name]
        section[last] = value
    return config


def test_a_run_that_meets_every_condition_departs_in_nothing() -> None:
    assert compare(NUMBER, CONFIG) == Conditions()


def test_other_data_are_named_once_by_their_name() -> None:
    found = compare(NUMBER, changed(data={"name": "shapes"}))
    assert found.data == ("data.name shapes instead of voc",)
    assert not found.settings


def test_another_part_of_the_same_data_is_other_data() -> None:
    assert compare(NUMBER, changed(data__year="2012")).data == ("data.year 2012 instead of 2007",)


@pytest.mark.parametrize("scale", ["smoke", "short"])
def test_any_scale_but_the_papers_is_another_scale_even_if_no_condition_says_so(scale: str) -> None:
    silent = replace(NUMBER, when={"data.name": "voc"})
    for number in (NUMBER, silent, None):
        found = compare(number, changed(scale=scale))
        assert found.scale == (f"scale={scale} instead of the published schedule",)
        assert not found.settings


def test_settings_that_differ_are_named_with_both_values() -> None:
    assert compare(NUMBER, changed(model__sizes=[22.0])).settings == ("model.sizes [22.0] instead of [128,256]",)
    config = changed()
    del config["model"]["weight"]
    assert compare(NUMBER, config).settings == ("model.weight absent instead of 10.0",)


def test_conditions_of_the_file_count_as_the_numbers_own() -> None:
    assert compare(NUMBER, CONFIG, when={"train.samples": 5}).scale == ("train.samples 1000 instead of 5",)


def test_a_number_without_conditions_can_never_be_reproduced() -> None:
    found = compare(replace(NUMBER, when={}), CONFIG)
    assert found.settings == ("the conditions of the published number are not stated, so nothing could be checked",)
    assert not compare(replace(NUMBER, when={}), CONFIG, when={"scale": "paper"}).settings


def test_a_note_with_the_number_is_a_deviation() -> None:
    assert compare(replace(NUMBER, deviation="joint training"), CONFIG).settings == ("joint training",)


def test_declared_deviations_are_said_where_they_hold() -> None:
    always = DeviationEntry(text="always")
    small = DeviationEntry(text="small data", when={"data.name": "shapes"})
    assert compare(NUMBER, CONFIG, declared=[always, small]).settings == ("always",)
    assert compare(NUMBER, changed(data={"name": "shapes"}), declared=[always, small]).settings == (
        "always", "small data"
    )  # fmt: skip


def test_what_the_command_line_changed_is_found_though_no_condition_speaks_of_it() -> None:
    found = compare(NUMBER, changed(train__samples=10), shipped=CONFIG)
    assert found.scale == ("train.samples 10 instead of 1000, as shipped",)
    assert judge(NUMBER, NUMBER.value, found) is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("data.max_train_images", "data"),
        ("optim.lr", "schedule"),
        ("teaching.optim.lr", "schedule"),
        ("train.batch_size", "schedule"),
        ("specialists.samples", "schedule"),
        ("specialists.count", "settings"),
        ("registration.samples", "settings"),
        ("model.units", "settings"),
    ],
)
def test_data_and_schedule_are_told_from_other_settings(key: str, kind: str) -> None:
    assert kind_of(key) == kind


def test_what_a_file_leaves_to_the_user_is_no_deviation() -> None:
    config = changed(train__samples=10)
    assert compare(NUMBER, config, shipped=CONFIG, left_to_user=["train.samples"]) == Conditions()


def test_where_and_how_fast_a_run_is_done_is_no_deviation() -> None:
    config = changed(seed=3, device="cuda", output__root="elsewhere", data__root="/b", train__log_every=1)
    assert compare(NUMBER, config, shipped=CONFIG) == Conditions()


def test_a_condition_is_judged_once() -> None:
    found = compare(NUMBER, changed(model__weight=1.0), shipped=CONFIG)
    assert found.settings == ("model.weight 1.0 instead of 10.0",)


def test_a_point_of_a_curve_is_placed_by_the_samples_it_is_read_at() -> None:
    axis = Axis(name="samples", unit="count", key="train.samples")
    point = replace(NUMBER, axis=axis, x=100.0)
    assert compare(point, CONFIG, samples=100) == Conditions()
    assert compare(point, CONFIG, samples=200).settings == ("samples 200 instead of 100.0",)
    assert compare(point, CONFIG).settings == ("samples 1000 instead of 100.0",)
    assert compare(replace(point, x=1000.0), CONFIG) == Conditions()


def test_numbers_are_compared_as_numbers_and_text_as_text() -> None:
    assert unmet({"a": 1, "b": [1, 2]}, {"a": 1.0, "b": (1.0, 2.0)}) == {}
    assert unmet({"a": 1, "b": "2007"}, {"a": True, "b": 2007}) == {"a": 1, "b": "2007"}
