"""A YAML file of one form: mistakes with their lines, what is expected there, and the nearest names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BeforeValidator, Field

from paperbench.config.schema import PositiveInt, Schema
from paperbench.config.yamlfile import read_yaml
from paperbench.errors import ConfigError


@dataclass(kw_only=True)
class Entry(Schema):
    row: Annotated[str, Field(min_length=1)]
    value: float | dict[str, float] | None = None
    kind: Literal["plain", "bold"] = "plain"


@dataclass(kw_only=True)
class Form(Schema):
    name: str
    rows: Annotated[list[Entry], Field(min_length=1)]
    seeds: PositiveInt = 1
    notes: Annotated[
        dict[Literal["all", "short"], list[str]],
        BeforeValidator(lambda value: {"all": value} if isinstance(value, list) else value),
    ] = field(default_factory=dict)


def mistakes(folder: Path, text: str) -> list[str]:
    file = folder / "form.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(file, Form)
    return [mistake.rpartition("form.yaml")[2] for mistake in caught.value.mistakes]


def test_a_sound_file_is_an_instance(tmp_path: Path) -> None:
    (tmp_path / "form.yaml").write_text("name: n\nrows: [{row: r, value: {a: 1}}]\nnotes: [x]\n", encoding="utf-8")
    form = read_yaml(tmp_path / "form.yaml", Form)

    assert form.rows == [Entry(row="r", value={"a": 1.0})]
    assert form.notes == {"all": ["x"]}


def test_every_mistake_has_its_line_its_place_and_what_is_expected(tmp_path: Path) -> None:
    text = "nmae: n\nrows:\n  - row: first\n    value: {a: x, 7: 1}\n  - row: second\n    kind: blod\n  - row: ''\nseeds: 0\n"

    assert sorted(mistakes(tmp_path, text)) == [
        ":1: name: is missing. Expected text",
        ":1: nmae: no such key. Nearest: name",
        ":4: rows.0 (first).value.7: names are text: write \"7\" in quotes",
        ":4: rows.0 (first).value.a: expected a number, given x",
        ":6: rows.1 (second).kind: expected one of plain, bold, given blod. Nearest: bold",
        ":7: rows.2.row: is empty. Expected text",
        ":8: seeds: expected a whole number above 0, given 0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("rows: []\nname: n", ":1: rows: is empty. Expected at least one entry"),
        ("rows: [{row: r, value: [1]}]\nname: n",
         ":1: rows.0 (r).value: expected a number or keys and values or null, given a list"),
        ("name: n\nrows: [{row: r}]\nnotes:\n- a\n- 3", ":5: notes.1: expected text, given 3 (not text: put it in quotes)"),
        ("name: n\nrows: [{row: r}]\nnotes: {shrt: []}", ":3: notes.shrt: expected one of all, short, given shrt. Nearest: short"),
        ("- 1", ":1: the file: expected a section with the keys name, rows, seeds, notes, given a list"),
        ("", ":1: the file: expected a section with the keys name, rows, seeds, notes, given null"),
        ("a: [", ": not valid YAML"),
    ],
)  # fmt: skip
def test_the_message(tmp_path: Path, text: str, mistake: str) -> None:
    (message,) = mistakes(tmp_path, text)

    assert message.startswith(mistake)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_yaml(tmp_path / "none.yaml", Form)
