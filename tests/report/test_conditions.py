"""How a run departs from what a published number asks for: found, not believed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from paperbench.report.conditions import departures, unmet
from paperbench.report.layoutfile import DeviationEntry
from paperbench.report.published import Published
from paperbench.report.published_form import Axis
from paperbench.report.verdict import Departures

NUMBER = Published(
    paper="p", table="T", caption="c", row="r", column="mAP", value=69.9, unit="percent", direction="higher",
    sample="s", tolerance=1.2, source="x", metric="voc07/mAP", note="",
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
    assert departures(NUMBER, CONFIG) == Departures()


def test_other_data_are_named_once_by_their_name() -> None:
    found = departures(NUMBER, changed(data={"name": "shapes"}))
    assert found.data == ("data.name shapes instead of voc",)
    assert not found.settings


def test_another_part_of_the_same_data_is_other_data() -> None:
    assert departures(NUMBER, changed(data__year="2012")).data == ("data.year 2012 instead of 2007",)


@pytest.mark.parametrize("scale", ["smoke", "short"])
def test_any_scale_but_the_papers_is_another_scale_even_if_no_condition_says_so(scale: str) -> None:
    silent = replace(NUMBER, when={"data.name": "voc"})
    for number in (NUMBER, silent, None):
        found = departures(number, changed(scale=scale))
        assert found.scale == (f"scale={scale} instead of the published schedule",)
        assert not found.settings


def test_settings_that_differ_are_named_with_both_values() -> None:
    assert departures(NUMBER, changed(model__sizes=[22.0])).settings == ("model.sizes [22.0] instead of [128,256]",)
    config = changed()
    del config["model"]["weight"]
    assert departures(NUMBER, config).settings == ("model.weight absent instead of 10.0",)


def test_conditions_of_the_file_count_as_the_numbers_own() -> None:
    assert departures(NUMBER, CONFIG, when={"train.samples": 5}).settings == ("train.samples 1000 instead of 5",)


def test_a_number_without_conditions_can_never_be_reproduced() -> None:
    found = departures(replace(NUMBER, when={}), CONFIG)
    assert found.settings == ("what the published number asks of a run is not stated, so nothing could be checked",)
    assert not departures(replace(NUMBER, when={}), CONFIG, when={"scale": "paper"}).settings


def test_a_note_with_the_number_is_a_deviation() -> None:
    assert departures(replace(NUMBER, note="joint training"), CONFIG).settings == ("joint training",)


def test_declared_deviations_are_said_where_they_hold() -> None:
    always = DeviationEntry(text="always")
    small = DeviationEntry(text="small data", when={"data.name": "shapes"})
    assert departures(NUMBER, CONFIG, declared=[always, small]).settings == ("always",)
    assert departures(NUMBER, changed(data={"name": "shapes"}), declared=[always, small]).settings == (
        "always", "small data"
    )  # fmt: skip


def test_what_the_command_line_changed_is_found_though_no_condition_speaks_of_it() -> None:
    found = departures(NUMBER, changed(train__samples=10), asked=CONFIG)
    assert found.settings == ("train.samples 10 instead of 1000 (asked for on the command line)",)


def test_what_a_file_leaves_to_the_user_is_no_deviation() -> None:
    config = changed(train__samples=10)
    assert departures(NUMBER, config, asked=CONFIG, left_to_user=["train.samples"]) == Departures()


def test_where_and_how_fast_a_run_is_done_is_no_deviation() -> None:
    config = changed(seed=3, device="cuda", output__root="elsewhere", data__root="/b", train__log_every=1)
    assert departures(NUMBER, config, asked=CONFIG) == Departures()


def test_a_condition_is_judged_once() -> None:
    found = departures(NUMBER, changed(model__weight=1.0), asked=CONFIG)
    assert found.settings == ("model.weight 1.0 instead of 10.0",)


def test_a_point_of_a_curve_is_placed_by_the_samples_it_is_read_at() -> None:
    axis = Axis(name="samples", unit="count", key="train.samples")
    point = replace(NUMBER, axis=axis, x=100.0)
    assert departures(point, CONFIG, samples=100) == Departures()
    assert departures(point, CONFIG, samples=200).settings == ("samples 200 instead of 100.0",)
    assert departures(point, CONFIG).settings == ("samples 1000 instead of 100.0",)
    assert departures(replace(point, x=1000.0), CONFIG) == Departures()


def test_numbers_are_compared_as_numbers_and_text_as_text() -> None:
    assert unmet({"a": 1, "b": [1, 2]}, {"a": 1.0, "b": (1.0, 2.0)}) == {}
    assert unmet({"a": 1, "b": "2007"}, {"a": True, "b": 2007}) == {"a": 1, "b": "2007"}
