"""Which image is for what: no image is for two things, and counts change nothing for the shares before them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from paperbench.errors import ConfigError
from paperbench.rca.config import JsrtData, PhantomData
from paperbench.rca.generated import parts
from paperbench.rca.segmenters.shares import shares
from tests.rca.segmenters.made import phantoms, radiographs


def test_no_image_is_in_two_shares() -> None:
    share = phantoms(calibration=4, training=5)
    groups = [set(group) for group in (share.training, share.references, share.cases, share.calibration)]
    assert [len(group) for group in groups] == [5, 2, 2, 4]
    assert all(not one & other for one, other in combinations(groups, 2))
    assert set().union(*groups) == set(range(13))


def test_on_disk_more_training_images_leave_the_other_shares_alone() -> None:
    few, many = (JsrtData(references=3, cases=4, training=count) for count in (1, 9))
    before, after = parts(few, 30), parts(many, 30)
    assert before["references"] == after["references"]
    assert before["cases"] == after["cases"]
    assert set(before["training"]) <= set(after["training"])


def test_segmenters_need_images_to_learn_from() -> None:
    with pytest.raises(ConfigError, match=r"data.training=0: segmenters learn from it"):
        shares(PhantomData(training=0))


def test_a_set_that_is_too_small_is_refused_with_both_numbers(tmp_path: Path) -> None:
    radiographs(tmp_path)
    with pytest.raises(ConfigError, match="references, cases, calibration, training are 7 images together, jsrt has 6"):
        shares(JsrtData(root=str(tmp_path), references=2, cases=2, training=3))
