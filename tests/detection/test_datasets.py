from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperbench.detection import datasets
from paperbench.detection.config import CocoData, DataConfig, PennFudanData, ShapesData, VocData
from paperbench.errors import DataError
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_pennfudan, write_voc

CAR = {"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 30], "area": 600, "iscrowd": 0}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """All data sets below one root, as a user keeps them."""
    dogs = {name: voc_xml(voc_object("dog", (1, 1, 9, 9))) for name in "abc"}
    write_voc(tmp_path, dogs)
    write_voc(tmp_path, {"d": voc_xml()}, split="test")
    write_coco(tmp_path, coco_content([CAR]), split="train2017")
    write_coco(tmp_path, coco_content([CAR], images=1))
    write_pennfudan(tmp_path, {f"FudanPed{k:05d}": [(1, 1, 9, 9)] for k in range(5)})
    return str(tmp_path)


def configs(root: str) -> dict[str, tuple[DataConfig, int, int]]:
    return {
        "shapes": (ShapesData(train_images=3, test_images=2, size=64), 3, 2),
        "voc": (VocData(root=root), 3, 1),
        "coco": (CocoData(root=root), 3, 1),
        "pennfudan": (PennFudanData(root=root, test_images=2), 3, 2),
    }


@pytest.mark.parametrize("name", ["shapes", "voc", "coco", "pennfudan"])
def test_both_splits_limits_and_description(root: str, name: str) -> None:
    config, train_images, test_images = configs(root)[name]
    train, test = datasets.load(config, "train"), datasets.load(config, "test")
    assert (train.name, len(train), len(test)) == (name, train_images, test_images)
    assert train.classes == test.classes
    assert f"{train_images} images" in datasets.describe(train)

    config.max_train_images, config.max_test_images = 2, 100
    assert [record.image_id for record in datasets.load(config, "train").records] == [
        record.image_id for record in train.records[:2]
    ]
    assert len(datasets.load(config, "test")) == test_images


@pytest.mark.parametrize("name", ["shapes", "voc", "coco", "pennfudan"])
def test_check_counts_both_splits(root: str, name: str) -> None:
    config, train_images, test_images = configs(root)[name]
    counts = datasets.check(config)
    assert counts["train"]["images"] == train_images
    assert counts["test"]["images"] == test_images
    assert sum(counts["train: objects by class"].values()) == counts["train"]["objects"]


def test_check_names_the_faults_of_both_splits(root: str) -> None:
    folder = Path(root) / "VOCdevkit" / "VOC2007"
    (folder / "JPEGImages" / "b.jpg").write_bytes(b"")
    (folder / "Annotations" / "d.xml").write_text(voc_xml(voc_object("dog", (9, 9, 1, 1))))
    with pytest.raises(DataError) as error:
        datasets.check(VocData(root=root))
    assert "b.jpg: truncated image: the file is empty" in str(error.value)
    assert "d.xml, object 1 (dog): inverted corners" in str(error.value)


def test_check_says_a_missing_data_set_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        datasets.check(PennFudanData(root=str(tmp_path)))
    assert str(error.value).count("no data set 'pennfudan' here") == 1


def test_check_notices_splits_with_other_classes(root: str) -> None:
    content = coco_content([CAR], images=1)
    content["categories"] = content["categories"][:2]
    write_coco(Path(root), content)
    with pytest.raises(DataError, match="classes of the training split and of the test split differ"):
        datasets.check(CocoData(root=root))


def test_options_reach_the_readers(root: str) -> None:
    folder = Path(root) / "VOCdevkit" / "VOC2007" / "Annotations"
    (folder / "a.xml").write_text(voc_xml(voc_object("gate", (0, 0, 9, 9)), voc_object("gate", (9, 0, 3, 9))))
    config = VocData(root=root, classes=("dog", "gate"), zero_based=True, on_bad_box="drop", train_split="trainval")
    dataset = datasets.load(config, "train")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 10, 10]]
    assert dataset.records[0].labels.tolist() == [2]
    assert datasets.describe(dataset).endswith("3 images, 3 objects, 2 classes; left out: 1 x inverted corners")


def test_the_store_follows_the_configuration() -> None:
    config = ShapesData(train_images=2, size=64, short_side=32, max_side=40)
    images = datasets.store(config, datasets.load(config, "train"), torch.device("cpu"))
    assert images.get(1).shape == (3, 32, 32)
