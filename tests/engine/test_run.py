"""The run as its task sees it: figures never cost a number."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import paperbench
from paperbench.catalog import TASKS
from paperbench.records.launch import compose_for, start
from tests.engine import toy
from tests.sweeps import toys


def test_a_figure_that_cannot_be_drawn_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    whole = toy.run

    def no_picture(place: Path) -> None:
        raise ValueError("height and width must be > 0")

    def run(config: toy.ToyConfig, run: object) -> dict[str, float]:
        metrics = whole(config, run)  # type: ignore[arg-type]
        run.draw(no_picture, tmp_path / "x.png")  # type: ignore[attr-defined]
        return metrics

    monkeypatch.setattr(toy, "run", run)
    outcome = start(compose_for("train", "toy", conf_dir=toys.conf(tmp_path / "elsewhere")))
    assert outcome.status == "done"
    log = (outcome.directory / "log.txt").read_text()
    assert "left out a figure (no picture), it cannot be drawn: height and width must be > 0" in log
    assert "Traceback" in log


def test_every_figure_of_a_task_is_drawn_so() -> None:
    """A call that is given the folder of the figures, in a module that a task consists of, is `run.draw(…)`."""
    package = Path(paperbench.__file__).parent
    papers = {task.module.split(".")[1] for task in TASKS.values() if task.module.startswith("paperbench.")}
    found = []
    for paper in sorted(papers):
        for file in (package / paper).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) == "draw":
                    continue
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                if any(
                    isinstance(item, ast.Attribute) and item.attr == "figures"
                    for arg in given
                    for item in ast.walk(arg)
                ):
                    found.append(f"{file.relative_to(package)}:{node.lineno} {ast.unparse(node.func)}")
    drawn_inside = {
        "rca/estimation.py figures.first_look",  # in `draw_worst`, as the next
        "rca/estimation.py figures.worst",
        "stn/drawing.py draw_samples",  # in `draw_figures`, as the next
        "stn/drawing.py draw_class_means",
        "vae/semi_task.py drawing.save_image_grid",  # in `_draw_styles`
    }
    assert {f"{text.partition(':')[0]} {text.rpartition(' ')[2]}" for text in found} == drawn_inside
