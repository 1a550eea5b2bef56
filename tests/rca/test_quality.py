"""Quality of a mask from arrays: the same numbers as the command, and clear errors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from paperbench.config.compose import compose
from paperbench.rca import datasets
from paperbench.rca.quality import estimate_quality
from tests.rca.made import estimate, make_image


def pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    image = make_image(number)
    assert image.truth is not None
    return image.intensities, image.truth


@pytest.mark.parametrize(("metric", "choose"), [("dsc", True), ("hd95", False)])
def test_the_estimate_is_that_of_the_task(
    tmp_path: Path, metric: str, choose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, values in (
        ("CONTRASTS", (0.0, 0.13)),
        ("WINDOWS", (2.0,)),
        ("FOCUSES", (0.05,)),
        ("RESOLUTIONS", (1.0,)),
    ):
        monkeypatch.setattr(f"paperbench.rca.settings.{name}", values)  # fewer trials
    words = ["data.shape=[40,40]", "data.cases=1", "data.references=3", "calibration.kind=none", f"metrics=[{metric}]"]
    words.append(f"registration.choose={str(choose).lower()}")
    result, _ = estimate("rca", *words, "output.transforms=", "pictures=0", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    with (tmp_path / "run" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    case_set = datasets.find(compose("rca", words).config).read()
    case = case_set.cases[0].load()
    references = [(r.intensities, r.truth) for r in case_set.references if r.truth is not None]
    found = estimate_quality(case.intensities, case.masks["deformed"], references, metric=metric, choose=choose)  # pyright: ignore[reportArgumentType]
    assert found.metric == metric
    assert list(found.scores) == [1, 2, 3, 4, 5]
    assert list(found.scores.values()) == pytest.approx([float(row["max"]) for row in rows], abs=1e-6)


def test_spacing_is_in_millimetres_along_each_axis() -> None:
    image, mask = pair(9)
    plain = estimate_quality(image, mask, [pair(0)], metric="hd")
    scaled = estimate_quality(image, mask, [pair(0)], spacing=(2, 2), metric="hd")
    assert scaled.scores == pytest.approx({label: 2 * value for label, value in plain.scores.items()})


def test_a_volume_with_masks_of_any_integer_type() -> None:
    volumes = [make_image(k, shape=(24, 25, 26)) for k in (0, 9)]
    (reference, reference_mask), (image, mask) = [(v.intensities, v.truth) for v in volumes if v.truth is not None]
    scores = estimate_quality(image * 1000, mask.astype(np.uint8), [(reference, reference_mask)]).scores
    assert all(0 <= value <= 1 for value in scores.values())


def test_arrays_that_do_not_fit_are_named() -> None:
    image, mask = pair(9)
    blank = np.ones_like(image)
    for arguments, options, message in [
        ((image, mask, []), {}, "references is empty"),
        ((image, mask[1:], [pair(0)]), {}, "image: its mask has the shape"),
        ((image, mask, [(image, mask), (image[None], mask[None])]), {}, r"references\[1\]: has 3 axes"),
        ((image, mask - 1, [pair(0)]), {}, "integers >= 0"),
        ((image, mask.astype(float), [pair(0)]), {}, "integers >= 0"),
        ((np.full_like(image, np.nan), mask, [pair(0)]), {}, "not finite"),
        ((image, mask, [pair(0)]), {"spacing": (1, 1, 1)}, "give 2 positive lengths"),
        ((image, mask, [pair(0)]), {"metric": "dice"}, "'dice' is none of dsc"),
        ((image, mask, [(image, np.zeros_like(mask))]), {}, "masks are all empty"),
        ((image, mask, [(blank, mask)]), {}, "none of 1 references could be used"),
    ]:
        with pytest.raises(ValueError, match=message):
            estimate_quality(*arguments, **options)


def test_an_image_is_never_its_own_reference() -> None:
    image, mask = pair(9)
    with pytest.raises(ValueError, match="is this very image"):
        estimate_quality(image, mask, [(2 * image + 5, mask)], choose=False)
    with pytest.warns(UserWarning, match=r"references\[0\] is this very image"):
        found = estimate_quality(image, mask, [(image, mask), pair(0)], choose=False)
    assert found.scores == estimate_quality(image, mask, [pair(0)], choose=False).scores


def test_labels_that_no_reference_has_are_named() -> None:
    image, mask = pair(9)
    with pytest.raises(ValueError, match="holds the label 255, which no reference has"):
        estimate_quality(image, np.where(mask == 1, 255, mask), [pair(0)], choose=False)
