"""SimpleITK's registration as a second opinion on ours."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.rca.atlas import Atlas
from paperbench.rca.cases import Image
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.registration import PLANAR
from paperbench.rca.scoring import score_masks
from paperbench.rca.sitk import SitkAtlas
from tests.rca.made import estimate, make_image

pytest.importorskip("SimpleITK")
LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))


def test_both_engines_come_to_the_same_prediction() -> None:
    references = [make_image(k, shape=(48, 48)) for k in range(2)]
    case = make_image(9, shape=(48, 48), masks=3)
    found = []
    for classifier in (Atlas(PLANAR), SitkAtlas()):
        result = score_masks(case, references, classifier, LABELS, ["dsc"])
        assert not result.failures
        found.append([predict(mask, Rule()).best for mask in result.masks])
    assert np.abs(np.subtract(*found)).mean() < 0.1
    assert np.corrcoef(found)[0, 1] > 0.7


@pytest.mark.parametrize("shape", [(40, 44), (24, 26, 28)])
def test_axes_stay_where_they_are_and_runs_are_equal(shape: tuple[int, ...]) -> None:
    case = make_image(9, shape=shape, masks=1)
    (drawn,) = SitkAtlas().segment(case, [replace(case, name="itself")])
    agree = (drawn.maps["mask-0"].numpy() == case.masks["mask-0"]).mean()
    assert agree > 0.98
    (again,) = SitkAtlas().segment(case, [replace(case, name="itself")])
    torch.testing.assert_close(drawn.maps["mask-0"], again.maps["mask-0"])


def test_a_reference_that_fails_is_recorded() -> None:
    blank = Image(name="blank", intensities=np.ones((40, 40), np.float32), spacing=(1.0, 1.0), physical=False)
    (drawn,) = SitkAtlas().segment(make_image(9, masks=1), [blank])
    assert "one value" in drawn.failure


def test_without_simpleitk_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    result, content = estimate("rca", "classifier=atlas-sitk", directory=tmp_path / "run")
    assert result.exit_code == 4
    assert "paperbench[sitk]" in content["error"]
    assert not (tmp_path / "run").exists()
