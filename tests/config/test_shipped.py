"""Every configuration that is shipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import pytest

from paperbench.catalog import DATASETS, TASKS
from paperbench.config import _hydra
from paperbench.config.compose import compose
from paperbench.config.experiments import HEADER, list_experiments, read_header
from paperbench.config.paths import options, shipped_conf
from paperbench.config.validate import validate
from paperbench.stn.config import Distortion, Transform

SHIPPED = list_experiments((shipped_conf(),))
SCALES = ("smoke", "short", "paper")


def _cases() -> list[tuple[str, str, str | None]]:
    cases: list[tuple[str, str, str | None]] = []
    for experiment, scale in itertools.product(SHIPPED, SCALES):
        datasets = [spec.name for spec in DATASETS.values() if experiment.task in spec.tasks] or [None]
        cases.extend((experiment.name, scale, name) for name in datasets)
    return cases


@pytest.fixture(scope="module", autouse=True)
def _remembered() -> Iterator[None]:
    """What a sweep does: files are merged once for the same choices, which are those of an experiment here."""
    with _hydra.remembered():
        yield


def test_there_are_experiments() -> None:
    assert {"faster-rcnn", "detections"} <= {experiment.name for experiment in SHIPPED}


@pytest.mark.parametrize(("experiment", "scale", "data"), _cases())
def test_every_experiment_composes_at_every_scale_with_every_data_set(
    experiment: str, scale: str, data: str | None
) -> None:
    composed = compose(experiment, [f"scale={scale}", *([f"data={data}"] if data else [])])

    assert composed.resolved["scale"] == scale
    assert composed.resolved["experiment"] == experiment
    assert composed.resolved["task"] == composed.task.name
    if data:
        assert composed.resolved["data"]["name"] == data
    assert validate(composed.task, composed.resolved) == composed.config


@pytest.mark.parametrize("experiment", [e.name for e in SHIPPED])
def test_every_experiment_file_opens_with_what_ls_shows(experiment: str) -> None:
    file = options("experiment", (shipped_conf(),))[experiment]
    header = read_header(file)

    assert tuple(header) == HEADER
    assert all(header.values())
    task = next(e.task for e in SHIPPED if e.name == experiment)
    for line in header["command"].splitlines():
        assert line.startswith(f"paperbench {TASKS[task].verb} {experiment}")


def test_every_data_set_has_its_group_file_and_back() -> None:
    assert set(options("data", (shipped_conf(),))) == set(DATASETS)


def test_every_preset_has_a_file_for_every_scale() -> None:
    files = set(options("preset", (shipped_conf(),)))
    presets = {file.rpartition("/")[0] for file in files}
    assert len(presets) > 20
    assert {f"{preset}/{scale}" for preset in presets for scale in SCALES} <= files


def test_every_file_of_a_preset_can_be_chosen() -> None:
    """`SCALE-data-DATA` and `SCALE-model-MODEL[-distortion-D|-transform-T]` name choices that there are; none renamed is left."""
    folders = (shipped_conf(),)
    models, datasets = options("model", folders), options("data", folders)
    others = [file.rpartition("/")[2].partition("-")[2] for file in options("preset", folders)]
    unknown = [part for part in others if part and part.removeprefix("data-") not in datasets]
    ends = [f"-transform-{kind}" for kind in get_args(Transform)] + [
        f"-distortion-{kind}" for kind in get_args(Distortion)
    ]

    def of_a_model(part: str) -> str:
        return next((part.removesuffix(end) for end in ends if part.endswith(end)), part).removeprefix("model-")

    assert [part for part in unknown if of_a_model(part) not in models] == []
