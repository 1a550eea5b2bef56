from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from paperbench.detection import datasets
from paperbench.detection.config import CocoData, DataConfig, PennFudanData, ShapesData, VocData, YoloData
from paperbench.detection.describe import describe_data
from paperbench.errors import ConfigError, DataError
from tests.data.files import coco_content, voc_object, voc_xml, write_coco, write_pennfudan, write_voc, write_yolo

CAR = {"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 30], "area": 600, "iscrowd": 0}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """All data sets below one root, as a user keeps them."""
    dogs = {name: voc_xml(voc_object("dog", (1, 1, 9, 9))) for name in "abc"}
    write_voc(tmp_path, dogs)
    write_voc(tmp_path, {"d": voc_xml(voc_object("dog", (1, 1, 9, 9)))}, split="test")
    write_coco(tmp_path, coco_content([CAR]), split="train2017")
    write_coco(tmp_path, coco_content([CAR], images=1))
    folder = write_pennfudan(tmp_path, {f"FudanPed{k:05d}": [(1, 1, 9, 9)] for k in range(5)})
    (folder / "PedMasks").mkdir()
    for k in range(5):
        Image.new("L", (60, 40), 1).save(folder / "PedMasks" / f"FudanPed{k:05d}_mask.png")
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


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("kind", "reader"),
    [(ShapesData, "shapes"), (VocData, "voc"), (CocoData, "coco"), (YoloData, "yolo"), (PennFudanData, "pennfudan")],
)
def test_every_key_of_a_data_set_arrives_at_its_reader(
    monkeypatch: pytest.MonkeyPatch, kind: Any, reader: str, split: Any
) -> None:
    # Of images, of several sets as one, and of one that is divided.
    others = {"short_side", "max_side", "cache_mb", "flip", "name", "train", "test_fraction", "split_seed"}
    values = {
        "root": "/there", "size": 77, "train_images": 31, "test_images": 32, "data_seed": 9, "max_objects": 5, "empty": 0.5,
        "year": "2099", "train_split": "one", "test_split": "other", "classes": ("x",), "zero_based": True, "exif": "apply",
        "max_train_images": 11, "max_test_images": 12, "on_bad_box": "clip",
    }  # fmt: skip
    own = {field.name for field in fields(kind)} - others
    assert own <= values.keys()
    seen: dict[str, Any] = {}
    monkeypatch.setattr(getattr(datasets, reader), "read", lambda **given: seen.update(given))
    datasets.load(kind(**{name: values[name] for name in own}), split)
    expected = {name: values[name] for name in own if not name.startswith(("max_t", "train_", "test_"))}
    if "train_split" in own:
        expected |= {"split": values[f"{split}_split"]}
    limit = values[f"max_{split}_images"]
    expected |= {"images": limit} if reader == "shapes" else {"limit": limit}
    expected |= {"test_images": 32} if reader == "pennfudan" else {}
    if reader == "shapes":
        del expected["on_bad_box"]  # of files
    assert {name: seen[name] for name in expected} == expected
    assert seen["split"] == expected.get("split", split)


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
    with pytest.raises(
        DataError, match="its classes are not those of the training split train2017\n  toothbrush is missing"
    ):
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


# --- two splits, one label set ----------------------------------------------------------------------------------------


def swapped(root: str, categories: list[dict[str, object]]) -> None:
    """The test split of COCO with other categories than the training split's; its one object is of category 3."""
    write_coco(Path(root), {**coco_content([CAR], images=1), "categories": categories})


def test_ids_that_stand_for_other_names_are_matched_by_name(root: str) -> None:
    swapped(root, [{"id": 3, "name": "toothbrush"}, {"id": 7, "name": "car"}, {"id": 90, "name": "train"}])
    train, test = datasets.load_splits(CocoData(root=root))
    assert train.classes == test.classes == ("car", "train", "toothbrush")
    assert train.records[0].labels.tolist() == [1]
    assert test.records[0].labels.tolist() == [3]
    assert test.category_ids == (7, 90, 3)
    assert "matched by name" in datasets.describe(test)
    assert datasets.check(CocoData(root=root))["test: objects by class"] == {"car": 0, "train": 0, "toothbrush": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("car", "train"), "toothbrush is missing"),
        (("car", "train", "tooth brush"), "toothbrush is missing; near it: tooth brush"),
        (("car", "train", "toothbrush", "dog"), "dog is there alone"),
    ],
)
def test_splits_of_other_categories_are_refused_by_name(root: str, names: tuple[str, ...], message: str) -> None:
    swapped(root, [{"id": 3 + k, "name": name} for k, name in enumerate(names)])
    with pytest.raises(
        DataError, match=rf"coco val2017: its classes are not those of .* train2017\n(.*\n)*  {message}"
    ):
        datasets.load_splits(CocoData(root=root))
    with pytest.raises(DataError, match=message):
        datasets.check(CocoData(root=root))


def test_a_model_finds_its_own_classes_in_a_test_split(root: str) -> None:
    test = datasets.load_test(CocoData(root=root), ("toothbrush", "car", "train"))
    assert test.records[0].labels.tolist() == [2]
    with pytest.raises(DataError, match="its classes are not those of the model"):
        datasets.load_test(CocoData(root=root), ("car",))


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_without_an_object_to_learn_or_to_find_are_refused(root: str, split: str) -> None:
    folder = Path(root) / "VOCdevkit" / "VOC2007" / "Annotations"
    for name in "abc" if split == "train" else "d":
        (folder / f"{name}.xml").write_text(voc_xml(voc_object("dog", (1, 1, 9, 9), difficult=1)))
    verb = "learnt" if split == "train" else "found, so nothing can be scored"
    message = rf"all \d objects are difficult or crowd regions: there is nothing to be {verb}"
    with pytest.raises(DataError, match=message):
        datasets.load_splits(VocData(root=root))
    with pytest.raises(DataError, match=message):
        datasets.check(VocData(root=root))
    assert len(datasets.load(VocData(root=root), split)) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("cat", "dog", "cat"), "data.classes: cat stands there twice"), (("cat", " dog"), "' dog' has blanks around it")],
)
def test_label_sets_that_cannot_be_meant(root: str, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        datasets.locate(VocData(root=root, test_split="test", classes=classes))


def test_check_reads_masks_and_counts_what_a_reader_chose(root: str) -> None:
    square = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0]]
    write_coco(Path(root), coco_content([{**CAR, "segmentation": square}, {**CAR, "area": None}]), split="train2017")
    counts = datasets.check(CocoData(root=root))["train"]
    assert counts["objects without a mask, which models with masks refuse or leave out"] == 1
    assert counts["objects without an area, which have their box's"] == 1
    write_coco(Path(root), coco_content([{**CAR, "segmentation": [[float("nan")] * 6]}]), split="train2017")
    with pytest.raises(DataError, match=r"annotation 100 of .*: a mask that cannot be read"):
        datasets.check(CocoData(root=root))


# --- several sets as one ----------------------------------------------------------------------------------------------


def second_devkit(root: str) -> None:
    dogs = {f"2008_{k}": voc_xml(voc_object("cat", (1, 1, 9, 9))) for k in range(2)}
    folder = write_voc(Path(root), dogs, year="2012")
    for k in range(2):
        Image.new("RGB", (60, 40), (k, 9, 9)).save(folder / "JPEGImages" / f"2008_{k}.jpg")


def test_two_devkits_are_one_training_set(root: str) -> None:
    second_devkit(root)
    config = VocData(root=root, train=("2007/trainval", "2012/trainval"))
    datasets.locate(config)
    train, test = datasets.load_splits(config)
    assert [record.image_id for record in train.records] == ["a", "b", "c", "2008_0", "2008_1"]
    assert [record.image_id for record in test.records] == ["d"]
    assert "5 images (3 of 2007/trainval, 2 of 2012/trainval), 5 objects" in datasets.describe(train)
    assert "1 image that is in the training split too" in datasets.describe(test)
    counts = datasets.check(config)
    assert counts["train"]["from 2012/trainval"] == "2 images, 2 objects"
    assert any("in the training split too" in key for key in counts["test"])
    config.max_train_images = 3
    assert [record.image_id for record in datasets.load(config, "train").records] == ["a", "b", "2008_0"]


def test_faults_of_all_sources_are_named(root: str) -> None:
    config = VocData(root=root, train=("2007/trainval", "2012/trainval"))
    with pytest.raises(DataError, match=r"VOC2012/ImageSets/Main was looked for \(data.year=2012\)"):
        datasets.locate(config)
    second_devkit(root)
    for year, name in (("2007", "a"), ("2012", "2008_1")):
        file = Path(root) / "VOCdevkit" / f"VOC{year}" / "Annotations" / f"{name}.xml"
        file.write_text(voc_xml(voc_object("dog", (9, 9, 1, 1))))
    with pytest.raises(DataError) as error:
        datasets.load_splits(config)
    assert "a.xml, object 1 (dog): inverted corners" in str(error.value)
    assert "2008_1.xml, object 1 (dog): inverted corners" in str(error.value)
    with pytest.raises(ConfigError, match=r"data.train: 2007/trainval stands there twice"):
        datasets.load(VocData(root=root, train=("2007/trainval", "2007/trainval")), "train")


def test_annotation_files_with_their_folders_are_one_training_set(root: str) -> None:
    own = Path(root) / "mine"
    own.mkdir()
    content = {
        **coco_content([{**CAR, "image_id": 11, "category_id": 4}]),
        "categories": [{"id": 4, "name": "toothbrush"}, {"id": 9, "name": "car"}, {"id": 1, "name": "train"}],
    }
    for k, image in enumerate(content["images"]):
        Image.new("RGB", (60, 40), (k, 0, 0)).save(own / image["file_name"])
    (own / "labels.json").write_text(json.dumps(content))
    config = CocoData(root=root, train=("train2017", "mine/labels.json"))
    datasets.locate(config)
    train, test = datasets.load_splits(config)
    assert train.classes == test.classes == ("car", "train", "toothbrush")
    assert [record.labels.tolist() for record in train.records] == [[1], [], [], [], [3], []]
    ids = [f"{source}/{k}" for source in ("train2017", "mine/labels.json") for k in (10, 11, 12)]
    assert [record.image_id for record in train.records] == ids
    apart = CocoData(root=root, train=("train2017", f"{own / 'labels.json'}:{own}"))
    assert len(datasets.load(apart, "train")) == 6
    with pytest.raises(DataError, match=r"the folder of images .*elsewhere was looked for"):
        datasets.locate(CocoData(root=root, train=("mine/labels.json:elsewhere",)))
    # A labelling program's own layout, without a second source.
    assert len(datasets.load(CocoData(root=root, train_split="mine/labels.json"), "train")) == 3


def test_a_source_without_masks_beside_one_with_them(root: str) -> None:
    square = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0]]
    write_coco(Path(root), coco_content([{**CAR, "segmentation": square}]), split="train2017")
    config = CocoData(root=root, train=("train2017", "val2017"))
    assert datasets.load(config, "train").masks is not None
    with pytest.raises(DataError, match="val2017: no annotation has a segmentation, and the other sources have them"):
        datasets.load(config, "train", masks="all")


# --- one set as two ---------------------------------------------------------------------------------------------------


def pictures(folder: Path, count: int) -> list[str]:
    """Images that differ, since the same ones in both splits are remarked on."""
    folder.mkdir(parents=True)
    names = [f"{k}.jpg" for k in range(count)]
    for k, name in enumerate(names):
        Image.new("RGB", (60, 40), (20 * k, 9, 9)).save(folder / name)
    return names


def in_one_piece(root: Path, kind: str) -> VocData | CocoData | YoloData:
    """Ten images with a car each, and nothing that names splits."""
    names = pictures(root / "images", 10)
    if kind == "coco":
        images = [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(names)]
        cars = [{**CAR, "id": k, "image_id": k} for k in range(10)]
        content = {"images": images, "annotations": cars, "categories": [{"id": 3, "name": "car"}]}
        (root / "labels.json").write_text(json.dumps(content))
        return CocoData(root=str(root), train_split="labels.json:images", test_fraction=0.3)
    (root / "labels").mkdir()
    for k in range(10):
        if kind == "voc":
            (root / "labels" / f"{k}.xml").write_text(voc_xml(voc_object("car", (1, 1, 9, 9))))
        else:
            (root / "labels" / f"{k}.txt").write_text("0 .5 .5 .2 .2\n")
    if kind == "voc":
        return VocData(root=str(root), year="mine", train_split="all", test_fraction=0.3, classes=("car",))
    (root / "data.yaml").write_text("names: [car]\ntrain: images\n")
    return YoloData(root=str(root), test_fraction=0.3)


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_a_share_is_held_out_where_nothing_names_a_test_split(tmp_path: Path, kind: str) -> None:
    config = in_one_piece(tmp_path / "set", kind)
    datasets.locate(config)
    train, test = datasets.load_splits(config)

    assert (len(train), len(test)) == (7, 3)
    assert (train.objects, test.objects) == (7, 3)
    names = [Path(path).name for path in (*train.files, *test.files)]
    assert sorted(names) == [f"{k}.jpg" for k in range(10)]
    assert "without the 30 % held out for the test" in describe_data(config)
    config.split_seed = 1
    assert {path.name for path in datasets.load(config, "test").files} != {path.name for path in test.files}
    config.max_test_images = 2
    assert len(datasets.load(config, "test")) == 2
    assert datasets.check(config)["train"]["images"] == 7


def test_a_folder_that_is_no_devkit_is_not_called_one(tmp_path: Path) -> None:
    config = in_one_piece(tmp_path / "set", "voc")
    assert describe_data(config).startswith("voc: all XML files without the 30 % held out for the test in ")
    config.root = str(tmp_path / "nowhere")
    assert describe_data(config).startswith("voc: VOCmine all without ")


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_what_a_share_is_held_out_of_is_one_split(tmp_path: Path, kind: str) -> None:
    config = in_one_piece(tmp_path / "set", kind)
    config.train = ("mine/all",)
    for use in (lambda: datasets.load(config, "train"), lambda: datasets.locate(config)):
        with pytest.raises(ConfigError, match=r"data\.test_fraction: .* data\.train replaces it"):
            use()


def test_a_fault_in_either_part_is_named_by_the_check(tmp_path: Path) -> None:
    config = in_one_piece(tmp_path / "set", "coco")
    file = tmp_path / "set" / "labels.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry["bbox"] = [1, 2, -3, 4]
    file.write_text(json.dumps(content))

    with pytest.raises(DataError) as error:
        datasets.check(config)
    assert str(error.value).count("inverted corners") == 10


# --- the YOLO layout --------------------------------------------------------------------------------------------------


@pytest.fixture
def yolo_root(tmp_path: Path) -> str:
    write_yolo(tmp_path, {"a": "0 .5 .5 .5 .5\n", "b": "1 .5 .5 .5 .5\n"})
    write_yolo(tmp_path, {"c": "2 .5 .5 .5 .5\n"}, split="val")
    return str(tmp_path)


def test_both_splits_of_the_yolo_layout(yolo_root: str) -> None:
    for root in (yolo_root, f"{yolo_root}/data.yaml"):
        config = YoloData(root=root)
        datasets.locate(config)
        train, test = datasets.load_splits(config)
        assert (len(train), len(test), train.classes) == (2, 1, ("cat", "dog", "cow"))
        assert datasets.has_masks(config)
        assert describe_data(config).startswith("yolo: train and val in ")
        counts = datasets.check(config)
        assert counts["test: objects by class"] == {"cat": 0, "dog": 0, "cow": 1}
    config.max_train_images = 1
    assert len(datasets.load(config, "train")) == 1
    with pytest.raises(DataError, match="no split 'test'; there are: train, val"):
        datasets.locate(YoloData(root=yolo_root, test_split="test"))
    with pytest.raises(ConfigError, match="no class 'cwo'"):
        datasets.locate(YoloData(root=yolo_root, classes=("cwo",)))


def test_check_names_the_faults_of_both_yolo_splits(yolo_root: str) -> None:
    for split, name in (("train", "b"), ("val", "c")):
        (Path(yolo_root) / "labels" / split / f"{name}.txt").write_text("0 .5 .5 .5\n9 .5 .5 .5 .5\n")
    with pytest.raises(DataError) as error:
        datasets.check(YoloData(root=yolo_root))
    for text in ("b.txt:1: wrong number of columns", "c.txt:1: wrong", "c.txt:2: unknown class: 9"):
        assert text in str(error.value)


def test_several_folders_of_the_yolo_layout_are_one_training_set(yolo_root: str) -> None:
    write_yolo(Path(yolo_root) / "more", {"x": "1 .5 .5 .5 .5\n", "a": "0 .5 .5 .2 .2\n"}, names=("cow", "dog", "cat"))
    config = YoloData(root=yolo_root, train=(".", "more/data.yaml"))
    datasets.locate(config)
    train, test = datasets.load_splits(config)
    assert train.classes == test.classes == ("cat", "dog", "cow")
    # Their numbers stand for other names there: dog and cow.
    assert [record.labels.tolist() for record in train.records] == [[1], [2], [3], [2]]
    assert train.sources[1].images == 2
    with pytest.raises(DataError, match="nowhere: no such folder"):
        datasets.locate(YoloData(root=yolo_root, train=("nowhere",)))


@pytest.mark.parametrize("name", ["voc", "coco"])
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_check_counts_photographs_that_a_camera_stored_turned(root: str, name: str, orientation: int) -> None:
    config = configs(root)[name][0]
    path = next(
        p for p in sorted(Path(root).rglob("*.jpg")) if ("JPEGImages" if name == "voc" else "train2017") in str(p)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)
    for treatment, said in (("ignore", "read as stored"), ("apply", "turned upright")):
        config.exif = treatment  # type: ignore[union-attr]
        found = datasets.check(config)
        (remark,) = [key for key in found["train"] if "EXIF" in key]
        assert said in remark
        assert f"data.exif={'apply' if treatment == 'ignore' else 'ignore'}" in remark
        assert found["train"][remark] == 1
        assert not any("EXIF" in key for key in found["test"])
        assert said in datasets.describe(datasets.load(config, "train"))


def test_check_names_the_orientation_where_sizes_contradict(root: str) -> None:
    config = configs(root)["coco"][0]
    path = next(iter(sorted((Path(root) / "coco" / "train2017").glob("*.jpg"))))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.rotate(90, expand=True).save(path, exif=exif)
    with pytest.raises(DataError, match=r"size contradicts the image.*EXIF orientation 6 says: data\.exif=apply"):
        datasets.check(config)
    config.exif = "apply"  # type: ignore[union-attr]
    assert datasets.check(config)["train"]["images"] == 3


def test_images_are_kept_at_the_size_of_the_configuration() -> None:
    config = ShapesData(train_images=2, size=80, short_side=100, max_side=90)
    assert datasets.store(config, datasets.load(config, "train"), torch.device("cpu")).size(0) == (90, 90)
    config = ShapesData(train_images=2, size=80, short_side=60, max_side=90)
    assert datasets.store(config, datasets.load(config, "train"), torch.device("cpu")).size(0) == (60, 60)
