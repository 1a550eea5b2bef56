"""SimpleITK's registration as a second opinion on ours."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.rca.aggregation import Rule, predict
from paperbench.rca.atlas import Atlas
from paperbench.rca.cases import Picture
from paperbench.rca.judging import judge
from paperbench.rca.labels import Labels
from paperbench.rca.registration import PLANAR
from paperbench.rca.sitk import SitkAtlas
from tests.rca.made import estimate, picture

pytest.importorskip("SimpleITK")
LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))


def test_both_engines_come_to_the_same_prediction() -> None:
    references = [picture(k, shape=(48, 48)) for k in range(2)]
    case = picture(9, shape=(48, 48), masks=3)
    found = []
    for classifier in (Atlas(PLANAR), SitkAtlas()):
        verdicts = judge(case, references, classifier, LABELS, ["dsc"])
        assert not verdicts.failures
        found.append([predict(judged, Rule()).best for judged in verdicts.judged])
    assert np.abs(np.subtract(*found)).mean() < 0.1
    assert np.corrcoef(found)[0, 1] > 0.7


@pytest.mark.parametrize("shape", [(40, 44), (24, 26, 28)])
def test_axes_stay_where_they_are_and_runs_are_equal(shape: tuple[int, ...]) -> None:
    case = picture(9, shape=shape, masks=1)
    (drawn,) = SitkAtlas().draw(case, [replace(case, name="itself")])
    agree = (drawn.maps["mask-0"].numpy() == case.masks["mask-0"]).mean()
    assert agree > 0.98
    (again,) = SitkAtlas().draw(case, [replace(case, name="itself")])
    torch.testing.assert_close(drawn.maps["mask-0"], again.maps["mask-0"])


def test_a_reference_that_fails_is_recorded() -> None:
    blank = Picture(name="blank", image=np.ones((40, 40), np.float32), spacing=(1.0, 1.0), physical=False)
    (drawn,) = SitkAtlas().draw(picture(9, masks=1), [blank])
    assert "one value" in drawn.failure


def test_without_simpleitk_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    result, content = estimate("rca", "classifier=atlas-sitk", directory=tmp_path / "run")
    assert result.exit_code == 4
    assert "paperbench[sitk]" in content["error"]
    assert not (tmp_path / "run").exists()
