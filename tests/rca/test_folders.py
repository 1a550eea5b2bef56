"""Files by name and by manifest: what belongs together, what is said of the rest, and what a case makes of its files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperbench.data.phantoms import phantom
from paperbench.errors import DataError
from paperbench.rca import folders
from paperbench.rca.cases import CaseSet, without_itself
from paperbench.rca.config import LabelConfig, RcaEstimate, ReferenceConfig
from tests.rca.made import QUICK, SHAPE, estimate, grey, make_image, write_png


def config(root: Path, **keys: Any) -> RcaEstimate:
    given = {
        "images": str(root / "images"),
        "masks": (str(root / "masks"),),
        "reference": ReferenceConfig(images=str(root / "ref"), masks=str(root / "ref-masks")),
    }
    return RcaEstimate(**{**given, **keys})


def write(root: Path, *, mask: str = "c{}.png", image: str = "c{}.png") -> None:
    for k in range(3):
        picture, truth = phantom(k, shape=SHAPE)
        write_png(root / "ref" / f"r{k}.png", grey(picture))
        write_png(root / "ref-masks" / f"r{k}.png", truth)
    for k in range(2):
        picture, truth = phantom(50 + k, shape=SHAPE)
        write_png(root / "images" / image.format(k), grey(picture))
        write_png(root / "masks" / mask.format(k), truth)


def loaded(root: Path, **keys: Any) -> CaseSet:
    return folders.find(config(root, **keys)).read()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "mask"), [("c{}_0000.png", "c{}.png"), ("c{}_0000.png", "c{}_0000.png"), ("c{}.png", "c{}_0000.png")]
)
def test_names_of_nnunet(tmp_path: Path, image: str, mask: str) -> None:
    write(tmp_path, image=image, mask=mask)
    found = loaded(tmp_path)
    assert [case.name for case in found.cases] == ["c0", "c1"]
    assert all(case.load().masks for case in found.cases)


def test_the_whole_name_comes_first(tmp_path: Path) -> None:
    write(tmp_path)
    picture, truth = phantom(60, shape=SHAPE)
    write_png(tmp_path / "images" / "c0_0000.png", grey(picture))
    write_png(tmp_path / "masks" / "c0_0000.png", truth)
    found = {case.name: case.load() for case in loaded(tmp_path).cases}
    assert list(found) == ["c0", "c0_0000", "c1"]
    np.testing.assert_array_equal(found["c0_0000"].masks["masks"], truth)


def test_a_truth_that_belongs_to_no_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    write_png(tmp_path / "truth" / "c0_gt.png", np.zeros(SHAPE))
    with pytest.raises(DataError, match=r"no file name of .*images is found in .*truth.*c0_gt"):
        folders.find(config(tmp_path, truth=str(tmp_path / "truth")))


def test_what_a_segmenter_and_the_truth_lack_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    for folder in ("second", "truth"):
        write_png(tmp_path / folder / "c0.png", phantom(50, shape=SHAPE)[1])
    masks = (str(tmp_path / "masks"), str(tmp_path / "second"))
    source = folders.find(config(tmp_path, masks=masks, truth=str(tmp_path / "truth")))
    assert "second: no mask of 1 of 2 images: c1" in source.remarks
    assert any("1 of 2 images have no truth" in remark and "c1" in remark for remark in source.remarks)
    assert source.read().cases[1].load().problems == {"second": "has no mask of this image"}


def test_two_truths_of_one_case_in_a_manifest(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [f"reference,r{k},ref/r{k}.png,,,ref-masks/r{k}.png" for k in range(3)]
    rows += ["case,c0,images/c0.png,a,masks/c0.png,masks/c0.png", "case,c0,images/c0.png,b,masks/c0.png,masks/c1.png"]
    (tmp_path / "list.csv").write_text("\n".join(["role,case,image,segmenter,mask,truth", *rows]))
    with pytest.raises(DataError, match=r"list\.csv:6: case c0 has two truths"):
        folders.find(RcaEstimate(manifest=str(tmp_path / "list.csv")))


# --- references -------------------------------------------------------------------------------------------------------


def test_a_reference_that_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ref" / "r1.png").write_bytes(b"no image")
    found = loaded(tmp_path)
    assert [reference.name for reference in found.references] == ["r0", "r2"]
    assert "1 of 3 references cannot be used and is left out" in found.remarks
    assert any(remark.startswith("reference r1:") and "r1.png" in remark for remark in found.remarks)
    for name in ("r0", "r2"):
        (tmp_path / "ref" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="no reference can be used"):
        loaded(tmp_path)


def test_an_image_is_never_its_own_reference() -> None:
    references = [make_image(k) for k in range(3)]
    own = make_image(1, name="another name")
    kept, same = without_itself(own, references)
    assert ([each.name for each in kept], same) == (["p0", "p2"], ["p1"])
    # An 8-bit copy of the same pixels, as a conversion to PNG makes it.
    copy = grey(own.intensities).astype(np.float32)
    assert without_itself(make_image(1).__class__(**{**vars(own), "intensities": copy}), references)[1] == ["p1"]


# --- labels -----------------------------------------------------------------------------------------------------------


def relabelled(root: Path, change: dict[int, int], folder: str = "masks") -> None:
    for k in range(2):
        truth = phantom(50 + k, shape=SHAPE)[1]
        write_png(root / folder / f"c{k}.png", np.vectorize(lambda v: change.get(int(v), int(v)))(truth))


def test_a_mask_with_other_labels_fails_and_names_them(tmp_path: Path) -> None:
    write(tmp_path)
    relabelled(tmp_path, {1: 255})
    image = loaded(tmp_path).cases[0].load()
    assert not image.masks
    assert (
        "holds the label 255, which no reference has (they have 1, 2, 3, 4, 5), and lacks 1" in image.problems["masks"]
    )


def test_a_further_label_is_named_and_the_others_are_scored(tmp_path: Path) -> None:
    write(tmp_path)
    truth = phantom(50, shape=SHAPE)[1]
    truth[0, :3] = 9
    write_png(tmp_path / "masks" / "c0.png", truth)
    image = loaded(tmp_path).cases[0].load()
    assert list(image.masks) == ["masks"]
    (remark,) = image.remarks
    assert (remark.segmenter, remark.label) == ("masks", "9")
    chosen = loaded(tmp_path, labels=LabelConfig(values=(1, 2, 3, 4, 5)))
    assert chosen.cases[0].load().remarks == ()  # left out on purpose


def test_an_empty_mask_is_a_bad_mask_and_no_fault(tmp_path: Path) -> None:
    write(tmp_path)
    write_png(tmp_path / "masks" / "c0.png", np.zeros(SHAPE))
    image = loaded(tmp_path).cases[0].load()
    assert list(image.masks) == ["masks"]
    assert not image.remarks


def test_a_truth_with_other_labels_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    relabelled(tmp_path, {1: 255}, "truth")
    case = loaded(tmp_path, truth=str(tmp_path / "truth")).cases[0]
    with pytest.raises(DataError, match="the truth holds the label 255"):
        case.load()


def test_a_case_that_is_its_own_reference_is_scored_by_the_others_and_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    for k in range(2):  # the references are the images themselves, under other names
        for source, target in (("images", "ref"), ("masks", "ref-masks")):
            (tmp_path / target / f"r{k}.png").write_bytes((tmp_path / source / f"c{k}.png").read_bytes())
    words = [f"images={tmp_path / 'images'}", f"masks={tmp_path / 'masks'}", *QUICK[1:], "calibration.kind=none"]
    words += [f"reference.images={tmp_path / 'ref'}", f"reference.masks={tmp_path / 'ref-masks'}", "pictures=0"]
    result, _ = estimate("rca", *words, f"output.root={tmp_path / 'o'}", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    with (tmp_path / "run" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scored = [row for row in rows if row["metric"] == "dsc"]
    assert {row["references"] for row in scored} == {"2"}
    assert all(float(row["max"]) < 1 for row in scored)
    assert ["reference r0 is this very image" in row["problem"] for row in rows if row["problem"]] == [True, False]


def test_a_case_that_calibrates_itself_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "known").mkdir()
    for part, source in {"images": "images", "masks": "masks", "truth": "masks"}.items():  # under another name
        (tmp_path / "known" / part).mkdir()
        (tmp_path / "known" / part / "k0.png").write_bytes((tmp_path / source / "c1.png").read_bytes())
    words = [f"images={tmp_path / 'images'}", f"masks={tmp_path / 'masks'}", *QUICK[1:], "calibration.kind=labelled"]
    words += [f"calibration.{part}={tmp_path / 'known' / part}" for part in ("images", "masks", "truth")]
    words += [f"reference.images={tmp_path / 'ref'}", f"reference.masks={tmp_path / 'ref-masks'}", "pictures=0"]
    result, _ = estimate("rca", *words, f"output.root={tmp_path / 'o'}", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    with (tmp_path / "run" / "cases.csv").open(newline="", encoding="utf-8") as file:
        said = {row["case"]: row["problem"] for row in csv.DictReader(file) if row["problem"]}
    assert list(said) == ["c1"]
    assert "the calibration image k0 is this very image" in said["c1"]


def test_a_reference_without_a_label_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path)
    write_png(tmp_path / "ref-masks" / "r1.png", np.zeros(SHAPE, np.uint8))
    found = loaded(tmp_path)
    assert [reference.name for reference in found.references] == ["r0", "r2"]
    assert any("r1.png: no label in it, background alone" in remark for remark in found.remarks)
