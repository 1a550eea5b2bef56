from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as runs

from paperbench.data import coco, coco_masks
from paperbench.errors import DataError
from tests.data.files import coco_content, write_coco, write_image

CAR: dict[str, Any] = {"image_id": 10, "category_id": 3, "bbox": [1.5, 2, 20, 30.25], "area": 400.5, "iscrowd": 0}
CROWD = {"image_id": 12, "category_id": 90, "bbox": [0, 0, 60, 40], "area": 2000, "iscrowd": 1}


def read(root: Path, **options: Any) -> coco.DetectionSet:
    return coco.read(root=str(root), split="val2017", **options)


def test_boxes_labels_areas_and_crowds(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CROWD, CAR, {**CAR, "category_id": 7, "bbox": [0, 0, 5, 5]}]))
    dataset = read(tmp_path)
    assert dataset.classes == ("car", "train", "toothbrush")
    assert dataset.category_ids == (3, 7, 90)
    assert [record.image_id for record in dataset.records] == [10, 11, 12]
    first, empty, last = dataset.records
    assert first.boxes.tolist() == [[1.5, 2, 21.5, 32.25], [0, 0, 5, 5]]
    assert first.labels.tolist() == [1, 2]
    assert first.area.tolist() == [400.5, 400.5]
    assert empty.boxes.shape == (0, 4)
    assert last.labels.tolist() == [3]
    assert last.crowd.tolist() == [True]
    assert first.crowd.tolist() == first.difficult.tolist() == [False, False]
    assert first.source.endswith("000000000010.jpg")
    assert dataset.decode(2).shape == (40, 60, 3)


def test_area_and_crowd_may_be_absent(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([{"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 30]}]))
    record = read(tmp_path).records[0]
    assert record.area.tolist() == [600]
    assert record.crowd.tolist() == [False]


@pytest.mark.parametrize("width", [1000, 1e308])
def test_an_absent_area_is_that_of_the_box_as_it_is_used(tmp_path: Path, width: float) -> None:
    write_coco(tmp_path, coco_content([{"image_id": 10, "category_id": 3, "bbox": [40, 10, width, 20]}]))
    record = read(tmp_path, on_bad_box="clip").records[0]
    assert record.boxes.tolist() == [[40, 10, 60, 30]]
    assert record.area.tolist() == [400]


def test_masks_elsewhere_than_their_boxes_are_counted(tmp_path: Path) -> None:
    def square(x: float, y: float, side: float) -> list[list[float]]:
        return [[x, y, x + side, y, x + side, y + side, x, y + side]]

    masks = [square(4, 4, 20), square(2, 2, 10), [[4, 4, 24, 4, 14, 24]], square(20, 4, 20), [[4, 4, 5, 4, 5, 24]]]
    boxes = [[4, 4, 20, 20]] * 4 + [[4, 4, 1, 20]]
    entries = [
        {"image_id": 10, "category_id": 3, "bbox": box, "area": 10, "segmentation": mask}
        for box, mask in zip(boxes, masks, strict=True)
    ]
    write_coco(tmp_path, coco_content(entries))
    elsewhere = "objects whose mask lies elsewhere than their box"
    assert (
        read(tmp_path, masks="all").remarks[elsewhere] == 2
    )  # one is of an image half the size, one is another object's
    assert elsewhere not in read(tmp_path, masks="none").remarks


def test_areas_that_are_no_objects_are_counted(tmp_path: Path) -> None:
    boxes = [[0, 0, 20, 20]] * 5
    areas = [400, 0, 410, 1600, None]  # all of it, a tool's filler, rounding, an image twice the size, none
    entries = [
        {"image_id": 10, "category_id": 3, "bbox": box, "area": area} for box, area in zip(boxes, areas, strict=True)
    ]
    write_coco(tmp_path, coco_content(entries))
    counts = {text: count for text, count in read(tmp_path).remarks.items() if "larger than their box" in text}
    assert list(counts.values()) == [2]


@pytest.mark.parametrize("layout", ["coco", "here", "images"])
def test_layouts(tmp_path: Path, layout: str) -> None:
    write_coco(tmp_path, coco_content([CAR]))
    root = tmp_path if layout == "coco" else tmp_path / "coco"
    if layout == "images":
        (root / "images").mkdir()
        (root / "val2017").rename(root / "images" / "val2017")
    assert len(read(root)) == 3


FAULTY = {
    "zero area": {"bbox": [5, 5, 0, 9]},
    "inverted corners": {"bbox": [5, 5, -3, 9]},
    "outside the image": {"bbox": [55, 5, 9, 9]},
    "coordinates that are not finite": {"bbox": [5, float("nan"), 9, 9]},
    "unknown class": {"category_id": 4},
    "unknown image": {"image_id": 999},
    "no box": {"bbox": [5, 5, 9]},
}


@pytest.mark.parametrize("reason", FAULTY)
@pytest.mark.parametrize("position", [0, 1])
def test_faulty_annotations_are_named_or_dropped(tmp_path: Path, reason: str, position: int) -> None:
    entries = [{**CAR, "bbox": [1, 1, 8, 8]}, {**CAR, "bbox": [2, 2, 8, 8]}]
    entries[position] |= FAULTY[reason]
    path = write_coco(tmp_path, coco_content(entries))
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert f"{path}, annotation {100 + position}" in str(error.value)
    assert f": {reason}: " in str(error.value)
    dataset = read(tmp_path, on_bad_box="drop")
    assert dataset.dropped == {reason: 1}
    kept = 1 - position
    assert dataset.records[0].boxes.tolist() == [[1 + kept, 1 + kept, 9 + kept, 9 + kept]]


def test_a_missing_image_takes_its_objects_along(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR, {**CROWD, "image_id": 11}, {**CAR, "image_id": 12}]))
    (tmp_path / "coco" / "val2017" / "000000000011.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000011\.jpg: missing image"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_box="drop")
    assert [record.image_id for record in dataset.records] == [10, 12]
    assert [len(record.labels) for record in dataset.records] == [1, 1]
    assert dataset.dropped == {"missing image": 1}


def test_images_of_another_size(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR]))
    write_image(tmp_path / "coco" / "val2017" / "000000000010.jpg", height=60, width=40)
    with pytest.raises(DataError, match=r"image 10: size contradicts the image: 60 x 40, .* has 40 x 60"):
        read(tmp_path)


def test_two_ids_of_one_file(tmp_path: Path) -> None:
    content = coco_content([CAR])
    content["images"].append({**content["images"][0], "id": 77})
    write_coco(tmp_path, content)
    with pytest.raises(DataError, match=r"image 77: listed twice: 000000000010\.jpg is the file of image 10 too"):
        read(tmp_path)
    assert len(read(tmp_path, on_bad_box="drop")) == len(content["images"]) - 1


def test_duplicate_images(tmp_path: Path) -> None:
    content = coco_content([CAR])
    content["images"].append(content["images"][0])
    write_coco(tmp_path, content)
    with pytest.raises(DataError, match="image 10: duplicate image id"):
        read(tmp_path)
    assert len(read(tmp_path, on_bad_box="drop")) == 3


def test_limit_leaves_the_annotations_of_other_images_alone(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR, {**CAR, "image_id": 12}]))
    dataset = read(tmp_path, limit=1)
    assert len(dataset) == 1
    assert dataset.objects == 1
    assert dataset.dropped == {}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_files_cut_short(tmp_path: Path, share: float) -> None:
    path = write_coco(tmp_path, coco_content([CAR]))
    content = path.read_text()
    path.write_text(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"instances_val2017\.json: (the file is empty|half-written)"):
        read(tmp_path, on_bad_box="drop")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [c], "a list instead of an object"),
        (lambda c: {k: v for k, v in c.items() if k != "annotations"}, "'annotations' must be a list"),
        (
            lambda c: {**c, "images": [{"file_name": "a.jpg"}]},
            r"images\[0\]: id is missing; it must be a whole number, or text",
        ),
        (
            lambda c: {**c, "images": [{"id": 10, "file_name": "a.jpg"}]},
            "image 10: .*: needs file_name, height and width: no height, no w",
        ),
        (lambda c: {**c, "categories": []}, "'categories' must have"),
        (lambda c: {**c, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "share an id or a name"),
        (lambda c: {**c, "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "share an id or a name"),
    ],
)
def test_files_in_another_format(tmp_path: Path, change: Any, message: str) -> None:
    path = write_coco(tmp_path, coco_content([CAR]))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR]))
    with pytest.raises(DataError, match=r"instances_train2017\.json was looked for; there are the splits val2017"):
        coco.read(root=str(tmp_path), split="train2017")


@pytest.mark.parametrize("split", ["~/a/b.json:~/a", "~/a/b.json"])
def test_a_file_and_its_folder_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "a"
    folder.mkdir(parents=True)
    (folder / "b.json").write_text("{}")
    assert coco.find(str(tmp_path), split) == (folder / "b.json", folder)


def test_annotations_without_their_images(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR]))
    (tmp_path / "coco" / "val2017").rename(tmp_path / "coco" / "elsewhere")
    with pytest.raises(DataError, match="folder of images val2017"):
        read(tmp_path)


def test_many_objects_come_to_their_images(tmp_path: Path) -> None:
    """The grouping is vectorised: held against one that is not."""
    rng = np.random.default_rng(0)
    entries = [
        {"image_id": int(rng.integers(10, 13)), "category_id": 3, "bbox": [*rng.random(2).tolist(), 1.0 + k / 10, 2.0]}
        for k in range(60)
    ]
    write_coco(tmp_path, coco_content(entries))
    for record in read(tmp_path).records:
        widths = [entry["bbox"][2] for entry in entries if entry["image_id"] == record.image_id]
        np.testing.assert_allclose(record.boxes[:, 2] - record.boxes[:, 0], widths, atol=1e-5)


# --- masks ------------------------------------------------------------------------------------------------------------

SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]


def test_masks_from_polygons_and_from_runs(tmp_path: Path) -> None:
    plane = np.zeros((40, 60), np.uint8)
    plane[5:9, 10:30] = 1
    counts = np.diff(np.flatnonzero(np.diff(plane.ravel(order="F"), prepend=0, append=0)), prepend=0).tolist()
    loose = {"size": [40, 60], "counts": [*counts, 40 * 60 - sum(counts)]}
    tight = runs.encode(np.asfortranarray(plane))
    tight = {"size": [40, 60], "counts": tight["counts"].decode()}  # pyright: ignore[reportAttributeAccessIssue]
    entries = [{**CAR, "segmentation": part} for part in (SQUARE, loose, tight, [])]
    write_coco(tmp_path, coco_content(entries))
    masks = read(tmp_path).masks
    assert masks is not None
    square, first, second, nothing = masks(0)
    assert square[3:13, 2:12].all()
    assert square.sum() == 100
    np.testing.assert_array_equal(first, plane)
    np.testing.assert_array_equal(second, plane)
    assert not nothing.any()
    assert masks(1).shape == (0, 40, 60)


def test_boxes_alone_are_data_without_masks(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([CAR]))
    assert read(tmp_path).masks is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("here", "neither polygons nor runs"),
        ([[1.0, 2.0]], "neither polygons nor runs"),
        ({"size": [4, 6], "counts": [24]}, r"is of \[4, 6\], the image has \[40, 60\]"),
    ],
)
def test_segmentations_that_cannot_be_right_are_named(tmp_path: Path, segmentation: Any, message: str) -> None:
    write_coco(tmp_path, coco_content([{**CAR, "segmentation": segmentation}]))
    masks = read(tmp_path).masks
    assert masks is not None
    with pytest.raises(DataError, match=rf"instances_val2017.json, annotation \d+: .*{message}.*masks need one"):
        masks(0)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[float("nan"), 3, 12, 3, 12, 13]], "polygon 0 .* has nan among its coordinates, not a finite number"),
        ([SQUARE[0], [2, 3, 1e9, 3, 12, 13]], "polygon 1 .* has the coordinate 1000000000.0, far outside the image"),
        ([[2, 3, 10**400, 3, 12, 13]], "polygon 0 .* among its coordinates, not a finite number"),
        ([[2, 3, "12", 3, 12, 13]], "polygon 0 .* has '12' among its coordinates"),
        (SQUARE[0], r"a polygon is a list within the list"),
        ([[10, 10, 30, 30]], "polygon 0 .* has 4 numbers, not x and y of 3 points or more"),
        ([[10, 10, 30, 30, 5, 6, 7]], "polygon 0 .* has 7 numbers"),
        ([[10, 10, 30, 10, 20, 10]], "it has no pixel"),
        ([[-40, -40, -20, -40, -20, -20]], "it has no pixel"),
        ({"size": [40, 60], "counts": [640, 64]}, "the runs cover 704 pixels, and the image has 40 x 60 = 2400"),
        ({"size": [40, 60], "counts": [2400]}, "it has no pixel"),
        ({"size": [40, 60], "counts": [2500, -100]}, "not all lengths of 0 or more"),
        ({"size": [40, 60], "counts": "ab"}, "the runs (cover|end|are)"),
        ({"size": [40, 60], "counts": "é"}, "the letter 'é'"),
        ({"size": [40, 60], "counts": "``````````````"}, "a number without end"),
        ({"size": "here", "counts": [2400]}, "the segmentation is of 'here'"),
        ({"size": [40, 60], "counts": None}, "the runs are None, neither"),
    ],
)
def test_masks_are_looked_at_with_the_boxes_where_they_are_asked_for(
    tmp_path: Path, segmentation: Any, message: str
) -> None:
    sound = {**CAR, "segmentation": SQUARE}
    write_coco(tmp_path, coco_content([{**CAR, "segmentation": segmentation}, sound]))
    assert len(read(tmp_path).records[0].labels) == 2  # models of boxes do not need them
    for use in ("there", "all"):
        with pytest.raises(DataError, match=rf"annotation 100 of .* \(car\): a mask that cannot be read: .*{message}"):
            read(tmp_path, masks=use)
        dataset = read(tmp_path, masks=use, on_bad_box="drop")
        assert dataset.dropped == {"a mask that cannot be read": 1}
        assert len(dataset.records[0].labels) == 1


@pytest.mark.parametrize("nothing", [[], None])
def test_an_empty_list_is_no_mask(tmp_path: Path, nothing: Any) -> None:
    drawn = {**CAR, "bbox": [2, 3, 10, 10], "area": 100, "segmentation": SQUARE}
    write_coco(tmp_path, coco_content([{**CAR, "segmentation": nothing}, drawn]))
    with pytest.raises(DataError, match=rf"annotation 100 of .*: no mask: segmentation is {re.escape(str(nothing))}"):
        read(tmp_path, masks="all")
    left = read(tmp_path, masks="all", on_bad_box="drop")
    assert left.dropped == {"no mask": 1}
    assert list(read(tmp_path, masks="there").remarks.values()) == [1]
    write_coco(tmp_path, coco_content([{**CAR, "segmentation": nothing}]))
    assert read(tmp_path, masks="all").masks is None


def test_runs_are_decoded_as_pycocotools_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        plane = (rng.random((40, 60)) < rng.random()).astype(np.uint8)
        plane[rng.integers(0, 40) :, rng.integers(0, 60) :] ^= 1
        tight: Any = runs.encode(np.asfortranarray(plane))
        given = {"size": [40, 60], "counts": tight["counts"].decode()}
        np.testing.assert_array_equal(coco_masks.draw(given, 40, 60), plane)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": [400]}, r"area is \[400\], not a number of 0 or more"),
        ({"area": "400"}, r"area is '400'"),
        ({"area": -1}, r"area is -1"),
        ({"area": float("nan")}, r"area is nan"),
        ({"iscrowd": "0"}, r"iscrowd is '0', not 0 or 1"),
        ({"iscrowd": 2}, r"iscrowd is 2"),
        ({"bbox": [1, 2, "3", 4]}, r"no box: bbox is \[1, 2, '3', 4\]"),
        ({"bbox": [1, 2, True, 4]}, r"no box"),
        ({"bbox": None}, r"no box"),
        ({"bbox": [1, 2, 7.1e-15, 4]}, r"zero area"),
        ({"image_id": "10"}, r"unknown image: image_id '10' is not among the images; its ids are numbers"),
        ({"image_id": [10]}, r"unknown image: image_id \[10\]"),
        ({"category_id": True}, r"unknown class: category_id True"),
    ],
)
def test_values_of_other_types_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_coco(tmp_path, coco_content([{**CAR, "bbox": [1, 1, 8, 8], **change}, {**CAR, "bbox": [1, 1, 8, 8]}]))
    with pytest.raises(DataError, match=rf"instances_val2017\.json, annotation 100.*: .*{message}"):
        read(tmp_path)
    assert sum(read(tmp_path, on_bad_box="drop").dropped.values()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": 5}, "file_name is 5, not text"),
        ({"width": "60"}, "width is '60', not a whole number above 0"),
        ({"height": 40.5}, "height is 40.5, not a whole number above 0"),
        ({"height": True}, "height is True"),
    ],
)
def test_images_with_values_of_other_types_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = coco_content([CAR])
    write_coco(tmp_path, content)
    content["images"][0] |= change
    write_annotations(tmp_path, content)
    with pytest.raises(DataError, match=rf"image 10: .*needs file_name, height and width: {message}"):
        read(tmp_path)


def write_annotations(root: Path, content: Any) -> None:
    (root / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def test_absent_values_and_whole_numbers_with_a_point(tmp_path: Path) -> None:
    content = coco_content([{**CAR, "area": None, "iscrowd": None, "image_id": 10.0, "category_id": 3.0}])
    for image in content["images"]:
        image |= {"height": 40.0, "width": 60.0}
    write_coco(tmp_path, content)
    dataset = read(tmp_path)
    assert dataset.records[0].area.tolist() == [605]
    assert dataset.records[0].crowd.tolist() == [False]
    assert dataset.remarks == {"objects without an area, which have their box's": 1}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 3, "name": 1}], r"categories\[0\] \(id 3\): name is 1; a category is named by text"),
        ([{"id": 3, "name": " "}], r"categories\[0\] \(id 3\): name is ' '"),
        ([{"id": [3], "name": "a"}], r"categories\[0\]: id is \[3\]; it must be a whole number, or text"),
        ([{"id": 3, "name": "a"}, {"id": 4, "name": "a "}], r"'a' is also that of id 3; rename or merge them"),
    ],
)
def test_categories_of_other_types_are_named(tmp_path: Path, categories: Any, message: str) -> None:
    write_coco(tmp_path, {**coco_content([CAR]), "categories": categories})
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_backslashes_between_folders(tmp_path: Path) -> None:
    content = coco_content([CAR])
    for image in content["images"]:
        image["file_name"] = f"sub/{image['file_name']}"
    write_coco(tmp_path, content)
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")
    write_annotations(tmp_path, content)
    assert read(tmp_path).decode(0).shape == (40, 60, 3)


def test_ids_of_both_types(tmp_path: Path) -> None:
    content = coco_content([{**CAR, "image_id": "ten"}, {**CAR, "image_id": 11}])
    content["images"][0]["id"] = "ten"
    write_coco(tmp_path, content)
    assert [len(record.labels) for record in read(tmp_path).records] == [1, 1, 0]


def test_clip_cuts_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_content([{**CAR, "bbox": [50, 5, 40, 9]}]))
    dataset = read(tmp_path, on_bad_box="clip")
    assert dataset.records[0].boxes.tolist() == [[50, 5, 60, 14]]
    assert dataset.repaired == {"reached further beyond the image": 1}
