"""Properties that a prediction without truth must have (Valindria et al.), with real registrations of small phantoms."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from paperbench.data.phantoms import degraded
from paperbench.rca import atlas as atlas_module
from paperbench.rca.atlas import Atlas, TransformStore
from paperbench.rca.cases import Image
from paperbench.rca.labels import Labels
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.registration import Schedule, Transforms
from paperbench.rca.scoring import CaseResult, score_masks
from tests.rca.made import make_image

LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))
FAST = Schedule(affine=((4, 10),), bspline=((2, 6, 8),), stiffness=0.03, contrast=0.4, stride=2, focus=0.1)
fast = partial(Atlas, FAST, labels=LABELS)
REFERENCES = [make_image(k) for k in range(3)]


def scores(result: CaseResult) -> dict[tuple[str, str], dict[str, float]]:
    return {(j.segmenter, j.label): dict(j.scores) for j in result.masks}


def best(result: CaseResult) -> list[float]:
    return [predict(mask, Rule()).best for mask in result.masks]


def test_a_perfect_mask_with_its_own_image_among_the_references_scores_one() -> None:
    own = make_image(9)
    assert own.truth is not None
    case = replace(own, name="case", masks={"s": own.truth})
    still = Schedule(affine=((2, 1),), bspline=(), stiffness=0.0)
    assert min(best(score_masks(case, [*REFERENCES, own], fast(), LABELS, ["dsc"]))) > 0.97
    for asked in (1, 3):
        atlas = Atlas(replace(still, affine=()), labels=LABELS, samples=asked)
        assert min(best(score_masks(case, [own], atlas, LABELS, ["dsc"]))) == 1.0


def test_the_prediction_falls_as_the_mask_gets_worse() -> None:
    case = make_image(9)
    assert case.truth is not None
    planes = np.stack([case.truth == k for k in range(1, 6)])
    severities = np.linspace(0, 1, 9)
    masks = {f"{k}": LABELS.map_of(degraded(planes, s, np.random.default_rng(5))) for k, s in enumerate(severities)}
    result = score_masks(replace(case, masks=masks), REFERENCES, fast(), LABELS, ["dsc"])
    means = [np.mean([predict(j, Rule()).best for j in result.masks if j.segmenter == name]) for name in masks]
    assert np.corrcoef(severities, rankdata(means))[0, 1] < -0.8  # ranks of both: Spearman's correlation
    pairs = [(predict(j, Rule()).best, j.real) for j in result.masks]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.8


def test_an_empty_mask_scores_nothing_against_every_reference() -> None:
    case = replace(make_image(9), masks={"s": np.zeros((40, 40), np.int64)})
    assert best(score_masks(case, REFERENCES, fast(), LABELS, ["dsc"])) == [0.0] * 5


def test_permuting_labels_permutes_the_result() -> None:
    case = make_image(9, masks=2)
    turned = Labels("values", (3, 1, 5, 2, 4), tuple("caebd"))
    first = scores(score_masks(case, REFERENCES, fast(), LABELS, ["dsc"]))
    second = scores(score_masks(case, REFERENCES, fast(labels=turned), turned, ["dsc"]))
    assert first == second
    assert len(first) == 10


LOCAL = partial(Atlas, replace(FAST, contrast=0.0, window=2.0), labels=LABELS, samples=3)
"""Correlation around every voxel, and 27 (in the plane 9) points of a reference's voxel sampled."""


@pytest.mark.parametrize("fast", [fast, LOCAL])
@pytest.mark.parametrize("shape", [(40, 40), (28, 26, 24)])
def test_scores_depend_on_neither_order_nor_batching_nor_other_masks(
    shape: tuple[int, ...], fast: partial[Atlas]
) -> None:
    references = [make_image(k, shape=shape) for k in range(4)]
    case = make_image(9, shape=shape, masks=2)
    whole = scores(score_masks(case, references, fast(), LABELS, ["dsc", "hd"]))
    turned = scores(score_masks(case, references[::-1], fast(batch=1), LABELS, ["dsc", "hd"]))
    some = scores(score_masks(case, references[1:3], fast(), LABELS, ["dsc", "hd"]))
    alone = scores(
        score_masks(replace(case, masks={"mask-1": case.masks["mask-1"]}), references, fast(), LABELS, ["dsc", "hd"])
    )
    for key, found in whole.items():
        assert turned[key] == pytest.approx(found, abs=1e-6, nan_ok=True)
        assert some[key] == pytest.approx({k: v for k, v in found.items() if k in some[key]}, abs=1e-6, nan_ok=True)
    for key, found in alone.items():
        assert whole[key] == pytest.approx(found, abs=1e-6, nan_ok=True)


def test_stored_transforms_give_the_same_and_are_keyed_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_image(9, masks=1)
    store = TransformStore(tmp_path, FAST)
    fresh = scores(score_masks(case, REFERENCES, fast(store=store), LABELS, ["dsc"]))
    plain = atlas_module.register
    computed: list[int] = []

    def counted(references: Any, *rest: Any, **more: Any) -> Any:
        computed.append(len(references))
        return plain(references, *rest, **more)

    monkeypatch.setattr(atlas_module, "register", counted)
    renamed = replace(case, name="another name")
    assert scores(score_masks(renamed, REFERENCES, fast(store=store), LABELS, ["dsc"])) == fresh
    assert computed == []
    other = replace(
        case, intensities=case.intensities + np.float32(case.intensities.max()) * np.eye(40, dtype=np.float32)
    )
    score_masks(other, [*REFERENCES, make_image(7)], fast(store=store), LABELS, ["dsc"])
    assert computed == [4]
    moved = [replace(r, truth=np.roll(r.truth, 3, axis=0)) for r in REFERENCES[:1] if r.truth is not None]
    score_masks(case, moved, fast(store=store), LABELS, ["dsc"])
    assert computed == [4, 1]  # where the organs lie is content too
    for file in tmp_path.glob("*/*.npz"):
        file.write_bytes(file.read_bytes()[:50])
    assert scores(score_masks(case, REFERENCES, fast(store=store), LABELS, ["dsc"])) == fresh
    assert computed == [4, 1, 3]


def test_settings_have_transforms_of_their_own(tmp_path: Path) -> None:
    case = make_image(9, masks=1)
    fast(store=TransformStore(tmp_path, FAST)).transforms(case, REFERENCES)
    stiff = replace(FAST, stiffness=1.0)
    Atlas(stiff, store=TransformStore(tmp_path, stiff)).transforms(case, REFERENCES)
    assert len(list(tmp_path.glob("*/*.npz"))) == 2 * len(REFERENCES)


def test_a_reference_that_fails_is_recorded_and_the_others_score() -> None:
    blank = Image(
        name="blank",
        intensities=np.ones((40, 40), np.float32),
        spacing=(1.0, 1.0),
        physical=False,
        truth=REFERENCES[0].truth,
    )
    case = make_image(9, masks=1)
    result = score_masks(case, [*REFERENCES, blank], fast(), LABELS, ["dsc"])
    assert [name for name, _ in result.failures] == ["blank"]
    assert "one value 1" in result.failures[0][1]
    assert scores(result) == scores(score_masks(case, REFERENCES, fast(), LABELS, ["dsc"]))
    with pytest.raises(ValueError, match="none of 1 references could be used"):
        score_masks(case, [blank], fast(), LABELS, ["dsc"])


def test_a_mask_that_could_not_be_read_is_a_problem_of_its_segmenter() -> None:
    case = replace(make_image(9, masks=1), problems={"other": "torn"})
    result = score_masks(case, REFERENCES, fast(), LABELS, ["dsc"])
    assert result.problems == {"other": "torn"}
    assert {mask.segmenter for mask in result.masks} == {"mask-0"}


@pytest.mark.parametrize(("shape", "more"), [((24, 26), 4), ((24, 26, 25), 2)])
def test_large_images_are_reduced_before_they_are_registered(shape: tuple[int, ...], more: int) -> None:
    def enlarged(small: Image) -> Image:
        grow = np.ones((more,) * len(shape))
        assert small.truth is not None
        masks = {name: np.kron(mask, grow).astype(np.int64) for name, mask in small.masks.items()}
        truth, image = np.kron(small.truth, grow).astype(np.int64), np.kron(small.intensities, grow).astype(np.float32)
        return replace(small, intensities=image, truth=truth, masks=masks)

    levels = replace(FAST, contrast=0.0, side=round(math.prod(shape) ** (1 / len(shape))))
    references, case = [make_image(k, shape=shape) for k in range(2)], make_image(9, shape=shape, masks=2)
    atlas = Atlas(levels)
    assert atlas._prepare(enlarged(case)).image.shape[2:] == shape
    small = atlas.transforms(case, references)
    large = atlas.transforms(enlarged(case), [enlarged(reference) for reference in references])
    for one, other in zip(small, large, strict=True):
        assert isinstance(one, Transforms)
        assert isinstance(other, Transforms)
        torch.testing.assert_close(one.grid(0, shape), other.grid(0, shape), atol=0.02, rtol=0)
    result = score_masks(enlarged(case), [enlarged(case)], atlas, LABELS, ["dsc"])
    assert min(best(result)[:5]) > 0.97


# --- labels that stand for each other -----------------------------------------------------------------------------------


def renamed(labels: np.ndarray, names: dict[int, int]) -> np.ndarray:
    out = labels.copy()
    for old, new in names.items():
        out[labels == old] = new
    return out


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({1: 2, 2: 1}, "a, b lie where the references have b, a"),
        ({3: 4, 4: 5, 5: 3}, "c, d, e lie where the references have e, c, d"),
    ],
)
def test_exchanged_labels_of_a_mask_are_told_from_a_bad_mask(names: dict[int, int], said: str) -> None:
    case = make_image(9)
    assert case.truth is not None
    masks = {"good": case.truth, "mixed": renamed(case.truth, names), "bad": np.roll(case.truth, 9, axis=0)}
    remarks = score_masks(replace(case, masks=masks), REFERENCES, fast(), LABELS, ["hd95"]).remarks
    assert [remark.segmenter for remark in remarks] == ["mixed"]
    assert f"its labels {said}: do they mean the same?" in remarks[0].text


def test_exchanged_labels_of_a_truth_are_told_from_a_bad_mask() -> None:
    case = make_image(9, masks=1)
    assert case.truth is not None
    turned = replace(case, truth=renamed(case.truth, {1: 2, 2: 1}))
    (remark,) = score_masks(turned, REFERENCES, fast(), LABELS, ["dsc"]).remarks
    assert "its labels a, b lie where the truth has b, a" in remark.text


def test_masks_of_phantoms_however_bad_have_their_own_labels() -> None:
    rng = np.random.default_rng(0)
    case = make_image(9)
    assert case.truth is not None
    planes = LABELS.planes(torch.from_numpy(case.truth)).numpy()
    masks = {f"{k}": LABELS.map_of(degraded(planes, k / 8, rng)) for k in range(9)}
    assert score_masks(replace(case, masks=masks), REFERENCES, fast(), LABELS, ["dsc"]).remarks == ()
