"""Sets that are split, references that are selected, masks that are degraded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from paperbench.config.compose import compose
from paperbench.errors import ConfigError
from paperbench.rca import datasets
from paperbench.rca.cases import ReferenceSelection, leave_one_out, normalised, reason, thumbnail, without
from paperbench.rca.config import PhantomData, ReferenceConfig
from paperbench.rca.labels import Labels
from tests.rca.made import make_image, write_nifti, write_png

LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))


def write_jsrt(root: Path, count: int) -> None:
    for k in range(count):
        made = make_image(k, shape=(32, 32))
        assert made.truth is not None
        write_png(root / "JSRT/images" / f"JPCLN{k:03d}.png", made.intensities / made.intensities.max() * 255)
        write_png(root / "JSRT/masks" / f"JPCLN{k:03d}.png", np.where(made.truth > 0, 1 << (made.truth.clip(1) - 1), 0))


def test_a_radiograph_has_five_overlapping_organs(tmp_path: Path) -> None:
    write_jsrt(tmp_path, 5)
    config = compose("rca", ["data=jsrt", f"data.root={tmp_path}", "data.references=2", "data.cases=3"]).config
    case_set = datasets.find(config).read()
    assert case_set.labels.kind == "bits"
    assert case_set.labels.names[2:4] == ("heart", "right clavicle")
    assert len(case_set.references) == 2
    names = [reference.name for reference in case_set.references] + [case.name for case in case_set.cases]
    assert sorted(names) == [f"JPCLN{k:03d}" for k in range(5)]
    loaded = case_set.cases[0].load()
    assert set(loaded.masks) == {"deformed"}
    assert datasets.check(config.data)["images with label"] == dict.fromkeys(case_set.labels.names, 5)
    with pytest.raises(ConfigError, match="48 images together, jsrt has 5"):
        datasets.find(compose("rca", ["data=jsrt", f"data.root={tmp_path}"]).config)


def test_a_volume_keeps_its_spacing(tmp_path: Path) -> None:
    for k in range(3):
        made = make_image(k, shape=(26, 24, 25))
        assert made.truth is not None
        affine = np.diag([2.0, 1.0, 1.5, 1.0])
        write_nifti(tmp_path / "Task04_Hippocampus/imagesTr" / f"h{k}.nii.gz", made.intensities, affine)
        write_nifti(
            tmp_path / "Task04_Hippocampus/labelsTr" / f"h{k}.nii.gz",
            np.minimum(made.truth, 2).astype(np.uint8),
            affine,
        )
    words = ["data=hippocampus", f"data.root={tmp_path}", "data.references=1", "data.cases=2", "calibration.kind=none"]
    case_set = datasets.find(compose("rca", words).config).read()
    assert case_set.references[0].spacing == (2.0, 1.0, 1.5)
    assert case_set.references[0].physical


def test_splits_share_no_image_and_do_not_depend_on_the_seed() -> None:
    config = PhantomData(references=3, cases=5, calibration=2)
    split = datasets.split(config, 10)
    everything = [number for part in split.values() for number in part]
    assert sorted(everything) == list(range(10))
    assert split == datasets.split(config, 10)


def test_masks_are_a_function_of_the_seed() -> None:
    def masks(*words: str) -> np.ndarray:
        config = compose("rca", ["data.shape=[40,40]", "data.cases=2", *words]).config
        return datasets.find(config).read().cases[1].load().masks["deformed"]

    np.testing.assert_array_equal(masks(), masks("data.references=8"))
    assert (masks() != masks("seed=1")).any()


def test_degraded_references_begin_with_the_truth_and_are_scored_by_the_others() -> None:
    references = [make_image(k) for k in range(3)]
    (first, *_) = leave_one_out(references, LABELS, masks=4, seed=0)
    made = first.load()
    assert made.truth is not None
    np.testing.assert_array_equal(made.masks["degraded-000"], made.truth)
    assert (made.masks["degraded-003"] != made.truth).any()
    assert [other.name for other in without(references, first.name)] == ["p1", "p2"]
    again = leave_one_out(references[::-1], LABELS, masks=4, seed=0)[2].load()
    np.testing.assert_array_equal(again.masks["degraded-003"], made.masks["degraded-003"])


def test_one_reference_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match="need two"):
        leave_one_out([make_image(0)], LABELS, masks=4, seed=0)


@pytest.mark.parametrize("select", ["random", "nearest"])
def test_a_choice_of_references_does_not_depend_on_their_order(select: Literal["random", "nearest"]) -> None:
    references = [make_image(k) for k in range(8)]
    config = ReferenceConfig(select=select, count=3)
    selection = ReferenceSelection(config, seed=0)
    chosen = selection.select(make_image(20), references)
    assert len(chosen) == 3
    assert [r.name for r in chosen] == [r.name for r in selection.select(make_image(20), references[::-1])]


def test_the_nearest_reference_is_the_image_itself_at_any_scale() -> None:
    references = [make_image(k) for k in range(6)]
    scaled = make_image(4)
    scaled = type(scaled)(name="new", intensities=scaled.intensities * 1000 + 5, spacing=scaled.spacing, physical=False)
    assert [
        r.name
        for r in ReferenceSelection(ReferenceConfig(select="nearest", count=1), seed=0).select(scaled, references)
    ] == ["p4"]
    assert np.linalg.norm(thumbnail(scaled)) == pytest.approx(1)


def test_intensities_are_normalised() -> None:
    image = make_image(0).intensities
    np.testing.assert_allclose(normalised(image), normalised(image * 1e6), atol=1e-5)
    assert normalised(image).min() == 0
    assert normalised(image).max() == 1
    with pytest.raises(ValueError, match="one value 7") as caught:
        normalised(np.full((4, 4), 7, np.float32))
    assert reason(caught.value) == "the image has the one value 7 everywhere: nothing can be registered to it"
