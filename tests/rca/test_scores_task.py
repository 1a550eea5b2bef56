"""Scores of another program: of which metric they are, in which range, and what is poor."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paperbench.errors import ConfigError, DataError
from paperbench.rca import scores_task
from paperbench.rca.config import RcaScores
from paperbench.rca.mask_metric_specs import METRIC_SPECS, threshold_of


def write(path: Path, *, scale: float = 1.0, metric: str = "", further: str = "") -> str:
    lines = ["case,label,reference,score,truth" + (",metric" if metric else "")]
    lines += [
        f"c{case},liver,r{reference},{scale * (0.1 + 0.2 * case + 0.01 * reference):.4f},{scale * 0.5:.4f}"
        + (f",{metric}" if metric else "")
        for case in range(4)
        for reference in range(3)
    ]
    path.write_text("\n".join([*lines, *([further] if further else [])]) + "\n")
    return str(path)


def loaded(scores: str, **keys: Any) -> scores_task.Scores:
    return scores_task._load(RcaScores(scores=scores, **keys))


def test_overlaps_in_their_range_are_taken_for_such_and_this_is_said(tmp_path: Path) -> None:
    found = loaded(write(tmp_path / "s.csv"))
    assert (found.metric.higher_is_better, found.metric.upper, found.threshold) == (True, 1, 0.7)
    assert "taken for overlaps in 0..1" in found.remark
    assert loaded(write(tmp_path / "s.csv"), metric="dsc").remark == ""


@pytest.mark.parametrize("name", ["hd95", "asd"])
def test_distances_know_their_direction_and_have_no_threshold(tmp_path: Path, name: str) -> None:
    for scores in (
        loaded(write(tmp_path / "a.csv", scale=20), metric=name),
        loaded(write(tmp_path / "b.csv", scale=20, metric=name)),
    ):
        assert not scores.metric.higher_is_better
        assert (scores.metric.upper, scores.threshold, scores.remark) == (math.inf, None, "")
    assert loaded(str(tmp_path / "a.csv"), metric=name, threshold=5).threshold == 5


@pytest.mark.parametrize(
    ("file", "keys", "said"),
    [
        ({"scale": 100}, {}, "goes up to 72.*percent: divide them by 100.*metric=asd or hd or hd95"),
        ({"scale": 100}, {"higher_is_better": True}, "goes up to 72"),
        ({"further": "c9,liver,r0,inf,0.5"}, {}, "goes up to inf"),
        ({"scale": 100}, {"metric": "dsc"}, "dsc goes from 0 to 1.*divide all by 100"),
        ({"further": "c9,liver,r0,0.5,58"}, {"metric": "dsc"}, "58 of case c9"),
        ({"scale": 20}, {"metric": "hd", "higher_is_better": True}, "of hd smaller values are better"),
        ({"metric": "hd"}, {"metric": "dsc"}, "several metrics, dsc, hd"),
        ({}, {"threshold": 70}, "threshold=70: .*0 to 1; in percent.*threshold=0.7"),
        ({"scale": 20}, {"metric": "hd", "threshold": -1}, "threshold=-1"),
        ({"further": "c9,liver,r0,0_5,0.5"}, {}, "s.csv:14: score '0_5' is no number"),
    ],
)
def test_scores_and_keys_that_contradict_each_other(
    tmp_path: Path, file: dict[str, Any], keys: dict[str, Any], said: str
) -> None:
    scores = write(tmp_path / "s.csv", **file)
    with pytest.raises((ConfigError, DataError), match=said):
        scores_task.plan(RcaScores(scores=scores, **keys))


def test_another_metric_is_taken_where_its_direction_and_threshold_are_given(tmp_path: Path) -> None:
    scores = write(tmp_path / "s.csv", scale=40)
    found = loaded(scores, higher_is_better=True, threshold=20)
    assert (found.metric.upper, found.threshold) == (math.inf, 20)
    assert loaded(scores, higher_is_better=False).threshold is None


def test_thresholds_of_overlaps_mean_the_same_masks() -> None:
    dice, jaccard = (METRIC_SPECS[name].threshold for name in ("dsc", "jaccard"))
    assert dice is not None
    assert jaccard == pytest.approx(dice / (2 - dice), abs=1e-3)
    assert threshold_of(METRIC_SPECS["dsc"], 0.5) == (0.5, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",", ";"), "semicolons separate them: save the file with commas"),
        (lambda text: text.replace(".", ",").replace(",", ";"), "semicolons separate them"),
        (lambda text: text.replace(",", "\t"), "tabs separate them"),
        (lambda text: text.encode("utf-16"), "not a text file in UTF-8: it is in UTF-16; save it as UTF-8"),
        (lambda text: text.replace("liver", "für").encode("latin-1"), "not a text file in UTF-8: .*; save it as UTF-8"),
    ],
)
def test_other_separators_and_encodings_are_named(tmp_path: Path, change: Callable[[str], Any], said: str) -> None:
    path = Path(write(tmp_path / "s.csv"))
    content = change(path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        scores_task.plan(RcaScores(scores=str(path)))


def test_masks_without_a_number_are_counted_aloud(tmp_path: Path) -> None:
    further = "\n".join(f"c9,liver,r{reference},nan,0.5" for reference in range(3))
    scores = write(tmp_path / "s.csv", further=further)
    assert "1 of 5 masks and labels have no score that is a number, such as case c9" in loaded(scores).remark
    assert "no score" not in loaded(write(tmp_path / "t.csv")).remark


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ("C3,liver,r0,0.5,0.5", "case C3 and case c3 are taken for two"),
        ("c3,1.0,r0,0.5,0.5\nc3,1,r0,0.5,0.5", "label 1 and label 1.0 are taken for two"),
        ("c3,liver,c3,1,0.5", "1 of 4 masks and labels have a score on a reference of their own name, such as case c3"),
        ("nan,liver,r0,0.5,0.5\nc30,liver,r0,0.5,0.5", ""),
    ],
)
def test_names_that_mislead_are_remarked_on(tmp_path: Path, further: str, said: str) -> None:
    remark = loaded(write(tmp_path / "s.csv", further=further), metric="dsc").remark
    assert said in remark
    assert bool(said) == bool(remark)
