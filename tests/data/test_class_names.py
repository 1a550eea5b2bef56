"""Names of classes whose accents are composed in one file and apart in another: one name in every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.config.compose import compose
from paperbench.data import coco, voc, yolo
from paperbench.detection.evaluation.files import read_truth, read_voc, voc_file
from paperbench.errors import DataError
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_voc, write_yolo

ONE, TWO = "caf\u00e9", "cafe\u0301"
BOX = "0 .5 .5 .5 .5\n"


def categories(*names: str) -> list[dict[str, object]]:
    return [{"id": 3 + number, "name": name} for number, name in enumerate(names)]


def test_coco(tmp_path: Path) -> None:
    content = coco_content([{"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 20]}])
    write_coco(tmp_path, {**content, "categories": categories(TWO, "dog")})
    assert coco.read(root=str(tmp_path), split="val2017").classes == (ONE, "dog")
    write_coco(tmp_path, {**content, "categories": categories(ONE, TWO)})
    with pytest.raises(DataError, match="share an id or a name"):
        coco.read(root=str(tmp_path), split="val2017")


def test_voc_and_its_keys(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object(TWO, (1, 1, 30, 20)))})
    config = compose("faster-rcnn", ["data=voc", f"data.classes=['{TWO}']"]).config
    assert config.data.classes == (ONE,)
    assert voc.read(root=str(tmp_path), split="trainval", classes=(ONE,)).records[0].labels.tolist() == [1]


def test_yolo_by_description_and_by_list(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": BOX}, names=(TWO, "dog"))
    assert yolo.read(root=tmp_path, split="train").classes == (ONE, "dog")
    write_yolo(tmp_path, {"a": BOX}, names=(ONE, TWO))
    with pytest.raises(DataError, match="stands there twice"):
        yolo.read(root=tmp_path, split="train")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text(f"{ONE}\n{TWO}\n")
    with pytest.raises(DataError, match="stands there twice"):
        yolo.read(root=tmp_path, split="train")


def test_files_of_detections(tmp_path: Path) -> None:
    (tmp_path / voc_file(tmp_path, "val", TWO).name).write_text("a 0.5 1 1 30 20\n")
    assert len(read_voc(tmp_path, "val", ["a"], [ONE])[0].scores) == 1


def test_files_whose_accents_are_apart_are_found_by_the_composed_name(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {TWO: voc_xml(voc_object("cat", (1, 1, 30, 20)))})
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text(f"{ONE}\n")
    assert [r.image_id for r in voc.read(root=str(tmp_path), split="trainval").records] == [ONE]
    assert len(read_truth(folder, "trainval", ("cat",))[0].labels) == 1
    content = coco_content([{"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 20]}], images=1)
    content["images"][0]["file_name"] = f"{TWO}.jpg"
    path = write_coco(tmp_path, content)
    path.write_text(path.read_text().replace("e\\u0301", "\\u00e9"))
    assert coco.read(root=str(tmp_path), split="val2017").files[0].name == f"{TWO}.jpg"


def test_a_class_that_reads_as_a_number(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(voc_object("1e3", (1, 1, 30, 20)))})
    (name,) = compose("faster-rcnn", ["data=voc", "data.classes=[1e3]"]).config.data.classes
    with pytest.raises(DataError, match=r"""read as the number 1000\.0: 'data\.classes=\["1e3"\]'"""):
        voc.read(root=str(tmp_path), split="trainval", classes=(name,))
    quoted = compose("faster-rcnn", ["data=voc", 'data.classes=["1e3"]']).config.data.classes
    assert len(voc.read(root=str(tmp_path), split="trainval", classes=quoted).records) == 1


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "\x07"])
def test_control_characters_are_no_name(tmp_path: Path, name: str) -> None:
    content = coco_content([{"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 20]}])
    write_coco(tmp_path, {**content, "categories": categories(name, "dog")})
    with pytest.raises(DataError, match=r"name is '.*\\.*'; a category is named by text"):
        coco.read(root=str(tmp_path), split="val2017")
