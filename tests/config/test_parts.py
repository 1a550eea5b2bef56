"""The small parts: nearest names, schemas in words, headers, lines of files, differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from paperbench.config.difference import ABSENT, difference
from paperbench.config.experiments import list_experiments, read_header
from paperbench.config.fields import complete, describe, walk
from paperbench.config.sources import line_of
from paperbench.config.suggest import nearest, nearest_keys
from tests.user_folder import write

KEYS = ["optim.lr", "optim.lr_scale", "data.short_side", "model.rpn.sigma", "model.head.sigma", "seed"]


@pytest.mark.parametrize(
    ("word", "expected"), [("vgg", ["vgg16"]), ("VGG16", ["vgg16"]), ("resnet", ["resnet50"]), ("qqq", [])]
)
def test_nearest(word: str, expected: list[str]) -> None:
    assert nearest(word, ["vgg16", "resnet50", "zf"]) == expected


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("optim.lrr", "optim.lr"),
        ("lr", "optim.lr"),
        ("optim.short_side", "data.short_side"),
        ("modl.rpn.sigma", "model.rpn.sigma"),
        ("model.haed.sigma", "model.head.sigma"),
        ("sede", "seed"),
    ],
)
def test_nearest_keys(word: str, first: str) -> None:
    assert nearest_keys(word, KEYS)[0] == first


def test_no_key_is_near_to_nonsense() -> None:
    assert nearest_keys("zzz.qqq", KEYS) == []


@dataclass(kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: float = 2.0


@dataclass(kw_only=True)
class Drawing:
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = field(default_factory=Circle)
    frame: Square | None = None
    tags: tuple[str, ...] = ()


def test_keys_follow_the_chosen_variant() -> None:
    assert [key for key, _ in walk(Drawing, {})] == ["shape.kind", "shape.radius", "frame", "tags"]
    chosen = {"shape": {"kind": "square"}, "frame": {"side": 3}}
    assert [key for key, _ in walk(Drawing, chosen)] == ["shape.kind", "shape.side", "frame.kind", "frame.side", "tags"]


def test_completing_fills_sections_and_keeps_unknown_keys() -> None:
    assert complete(Drawing, {"shape": {"kind": "square"}, "odd": 1}) == {
        "shape": {"kind": "square", "side": 2.0},
        "frame": None,
        "tags": [],
        "odd": 1,
    }


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (bool, "true or false"),
        (str | None, "text or null"),
        (Annotated[float, Field(gt=0, lt=1)], "a number above 0 and below 1"),
        (Annotated[int, Field(ge=2)], "a whole number of 2 or more"),
        (Annotated[float, Field(le=5)], "a number of 5 or less"),
        (Annotated[str, Field(pattern="^a+$")], "text that matches ^a+$"),
        (Annotated[str, Field(pattern="^a+$", description="a row of a")], "a row of a"),
        (Literal["x", "y"], "one of x, y"),
        (Literal["x"], "x"),
        (tuple[int, ...], "a list like [a,b], each a whole number"),
        (tuple[float, float], "a list of 2, each a number"),
        (Circle, "a section with the keys kind, radius"),
    ],
)
def test_types_in_words(annotation: object, words: str) -> None:
    assert describe(annotation) == words


def test_a_header_may_go_on_over_several_lines(tmp_path: Path) -> None:
    text = "# @package _global_\n# paper:    A and B:\n#           On C\n# time:     1 min\nseed: 1\n# expected: too late\n"
    file = write(tmp_path / "e.yaml", text)

    assert read_header(file) == {"paper": "A and B:\nOn C", "time": "1 min"}


def test_the_task_of_an_experiment_may_come_from_the_one_it_builds_on(conf: Path) -> None:
    write(conf / "experiment/base.yaml", "# @package _global_\ntask: detect-train\n")
    write(conf / "experiment/derived.yaml", "# @package _global_\ndefaults: [base, _self_]\n")
    write(conf / "experiment/circular.yaml", "# @package _global_\ndefaults: [circular]\n")
    write(conf / "experiment/broken.yaml", "a: [\n")

    tasks = {experiment.name: experiment.task for experiment in list_experiments((conf,))}
    assert tasks == {"base": "detect-train", "derived": "detect-train", "circular": "", "broken": "", "mine": ""}


def test_the_line_of_a_key(tmp_path: Path) -> None:
    file = write(tmp_path / "e.yaml", "# comment\na:\n  b: 1\n  c: {d: 2}\n")

    assert [line_of(file, key) for key in ("a", "a.b", "a.c.d", "a.x", "a.b.c")] == [2, 3, 4, None, None]


def test_differences() -> None:
    before = {"a": {"b": 1, "c": 2}, "gone": 3, "same": [1]}
    after = {"a": {"b": 1, "c": 5}, "new": None, "same": [1]}

    assert difference(before, after) == [("a.c", 2, 5), ("new", ABSENT, None), ("gone", 3, ABSENT)]
