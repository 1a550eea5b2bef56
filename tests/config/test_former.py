"""Keys that had another name in an earlier version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.catalog import TASKS
from paperbench.config.explain import Explainer, Origin
from paperbench.config.former import modernised, todays_key
from paperbench.config.schema import NO_EFFECT, Formerly, PositiveInt, Schema, TrainConfig


@dataclass(kw_only=True)
class Head(Schema):
    batch_size: Annotated[PositiveInt, Formerly("rois", "regions")] = 128
    boxes: Annotated[Literal["joint", "none"], Formerly(values={"multi-task": "joint"})] = "joint"


@dataclass(kw_only=True)
class Net(Schema):
    name: Literal["net"] = "net"
    head: Annotated[Head, Formerly("top")] = field(default_factory=Head)


@dataclass(kw_only=True)
class Other(Schema):
    name: Literal["other"] = "other"


@dataclass(kw_only=True)
class Config(TrainConfig):
    model: Annotated[Net | Other, Field(discriminator="name")] = field(default_factory=Net)
    quiet: Annotated[bool, NO_EFFECT, Formerly("silent")] = False


def test_old_keys_and_values_become_todays() -> None:
    old = {"model": {"name": "net", "top": {"rois": 3, "boxes": "multi-task", "odd": 1}}, "seed": 2}

    assert modernised(Config, old) == {
        "model": {"name": "net", "head": {"batch_size": 3, "boxes": "joint", "odd": 1}},
        "seed": 2,
    }
    assert old["model"]["top"]["rois"] == 3  # type: ignore[index]


def test_a_key_that_is_there_under_both_names_is_left_for_validation() -> None:
    both = {"model": {"name": "net", "head": {"rois": 3, "batch_size": 4}}}

    assert modernised(Config, both) == both


def test_the_name_that_an_old_key_has_today() -> None:
    now = {"model": {"name": "net", "head": {}}}

    assert todays_key(Config, now, "model.top.regions") == "model.head.batch_size"
    assert todays_key(Config, now, "model.top") == "model.head"
    assert todays_key(Config, now, "model.head.batch_size") is None
    assert todays_key(Config, now, "model.nonsense") is None
    assert todays_key(Config, {"model": {"name": "other"}}, "model.top.rois") is None


def test_an_old_key_is_answered_with_its_new_name() -> None:
    explainer = Explainer(TASKS["detect-train"], Config, {}, Origin(given={"model.top.rois": "model.top.rois=9"}))

    assert explainer.unknown("model.top.rois") == (
        'model.top.rois: no such key (given as "model.top.rois=9"). It was renamed: model.head.batch_size (now 128)'
    )
