"""`paperbench eval detections`: files in, the devkit's and pycocotools' numbers out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paperbench.detection import datasets
from paperbench.detection.config import ScoreFiles
from paperbench.detection.evaluation.files import voc_file, write_coco, write_voc
from paperbench.detection.evaluation.yolo_detections import write_yolo as write_detections
from paperbench.detection.tasks.score_files import plan, run
from paperbench.engine.run import Run
from paperbench.errors import ConfigError, DataError
from tests.data.files import write_yolo
from tests.detection.evaluation.cases import found as found_there
from tests.detection.test_datasets import in_one_piece

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def annotate(devkit: Path, image: str, *objects: tuple[str, tuple[float, float, float, float], int]) -> None:
    body = "".join(OBJECT.format(*box, name=name, difficult=difficult) for name, box, difficult in objects)
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    path = devkit / "Annotations" / f"{image}.xml"
    path.write_text(f"<annotation><filename>{image}.jpg</filename>{size}{body}</annotation>")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Three annotated images of two classes, and no picture: cats in 1 and 2, dogs in 1 and, difficult, in 3."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "val.txt").write_text("2008_1\n2008_2\n2008_3\n")
    annotate(root, "2008_1", ("cat", (1, 1, 10, 10), 0), ("dog", (21, 21, 60, 60), 0))
    annotate(root, "2008_2", ("cat", (31, 31, 80, 80), 0))
    annotate(root, "2008_3", ("dog", (1, 1, 40, 40), 1))
    return root


@pytest.fixture
def found(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    folder.mkdir()
    # The first cat overlaps by exactly one half in inclusive pixels; the second detection is in the wrong place.
    voc_file(folder, "val", "cat").write_text("2008_1 0.9 1 1 10 5\n2008_2 0.8 1 1 20 20\n")
    voc_file(folder, "val", "dog").write_text("2008_3 0.9 1 1 40 40\n2008_1 0.7 21 21 60 60\n")
    return folder


class Messages(list[str]):
    def message(self, text: str) -> None:
        self.append(text)


def score(config: ScoreFiles, folder: Path) -> tuple[dict[str, float], Messages]:
    said = Messages()
    world = SimpleNamespace(on_main=lambda work: work())
    here = SimpleNamespace(
        ranks=world,
        reporter=said,
        directory=SimpleNamespace(figures=folder / "figures"),
        draw=lambda figure, *arguments: figure(*arguments),
    )
    return run(config, cast(Run, here)), said


def voc_config(devkit: Path, found: Path, **changes: Any) -> ScoreFiles:
    options: dict[str, Any] = {"gt": str(devkit), "dt": str(found), "split": "val", "classes": ("cat", "dog")}
    return ScoreFiles(**(options | changes))


def test_voc_files_are_scored_with_inclusive_corners_and_difficult_objects(
    devkit: Path, found: Path, tmp_path: Path
) -> None:
    metrics, said = score(voc_config(devkit, found), tmp_path)
    assert metrics["voc/AP/cat"] == pytest.approx(50)
    assert metrics["voc07/AP/cat"] == pytest.approx(100 * 6 / 11)
    assert metrics["voc/AP/dog"] == metrics["voc07/AP/dog"] == pytest.approx(100)
    assert metrics["voc/mAP"] == pytest.approx(75)
    assert said == ["4 detections in 3 images with 4 objects"]
    assert (tmp_path / "figures" / "precision_recall.png").is_file()


def test_classes_chosen_leave_the_others_out(devkit: Path, found: Path, tmp_path: Path) -> None:
    metrics, _ = score(voc_config(devkit, found, classes=("dog",)), tmp_path)
    assert metrics == {name: pytest.approx(100) for name in ("voc07/mAP", "voc/mAP", "voc07/AP/dog", "voc/AP/dog")}


def test_without_classes_the_twenty_of_voc_are_meant(devkit: Path, found: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"comp4_det_val_aeroplane\.txt"):
        score(voc_config(devkit, found, classes=()), tmp_path)
    from paperbench.data.voc import CLASSES

    for name in CLASSES:
        voc_file(found, "val", name).touch()
    metrics, said = score(voc_config(devkit, found, classes=()), tmp_path)
    assert metrics["voc/mAP"] == pytest.approx(75)
    assert "voc/AP/aeroplane" not in metrics
    assert said[1].startswith("no object to find, so left out of the means: aeroplane, bicycle")


def test_a_class_that_voc_does_not_have_is_a_fault_without_classes(devkit: Path, found: Path, tmp_path: Path) -> None:
    annotate(devkit, "2008_2", ("catt", (1, 1, 9, 9), 0))
    with pytest.raises(DataError, match=r"2008_2\.xml, object 1 \(catt\): unknown class: did you mean cat\?") as caught:
        score(voc_config(devkit, found, classes=()), tmp_path)
    assert "data.on_bad_box" not in str(caught.value)


def test_every_faulty_annotation_is_named(devkit: Path, found: Path, tmp_path: Path) -> None:
    annotate(devkit, "2008_1", ("cat", (50, 1, 10, 10), 0))
    (devkit / "Annotations" / "2008_2.xml").write_text("<annotation><object>")
    (devkit / "Annotations" / "2008_3.xml").unlink()
    with pytest.raises(DataError) as caught:
        score(voc_config(devkit, found), tmp_path)
    text = str(caught.value)
    assert "3 faults" in text
    assert "2008_1.xml, object 1 (cat): no box: xmin, ymin, xmax, ymax read 50, 1, 10, 10" in text
    assert "2008_2.xml" in text
    assert "2008_3.xml" in text


def test_coco_files_are_scored(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 5}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    hit = {"image_id": 5, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.5}
    (tmp_path / "dt.json").write_text(json.dumps([hit]))
    config = ScoreFiles(format="coco", gt=str(tmp_path / "gt.json"), dt=str(tmp_path / "dt.json"))
    metrics, _ = score(config, tmp_path)
    assert metrics["coco/AP"] == metrics["coco/AP/cat"] == pytest.approx(100)
    assert plan(config)["data"].startswith("coco: ")


def test_plan_says_what_is_scored(devkit: Path, found: Path) -> None:
    facts = plan(voc_config(devkit, found))
    assert facts["data"] == f"voc: VOC2012 val, 2 classes, in {devkit}"
    assert facts["detections"] == str(found)


def test_keys_left_empty_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(ScoreFiles())
    assert [text.split(" is empty")[0] for text in caught.value.mistakes] == ["gt", "dt"]
    with pytest.raises(ConfigError, match="classes belongs to format=voc"):
        plan(ScoreFiles(format="coco", gt="a", dt="b", classes=("cat",)))


def test_paths_that_lead_nowhere_are_named(devkit: Path, found: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gt=.*nowhere: should be the folder VOCdevkit/VOC<year>, but does not exist"):
        plan(voc_config(tmp_path / "nowhere", found))
    with pytest.raises(DataError, match=r"dt=.*cat\.txt: should be the folder of .*, but is not one"):
        plan(voc_config(devkit, found / "comp4_det_val_cat.txt"))
    with pytest.raises(DataError, match="no ImageSets/Main in it"):
        score(voc_config(devkit.parent, found), tmp_path)
    with pytest.raises(DataError, match=r"test\.txt: no such split"):
        score(voc_config(devkit, found, split="test"), tmp_path)


# --- the devkit's rules to the last bit -------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [("0.9", "0.9"), ("0.99999999", "0.99999998")])
def test_equal_scores_keep_the_order_of_the_file_and_close_ones_their_own(
    devkit: Path, found: Path, tmp_path: Path, scores: tuple[str, str]
) -> None:
    voc_file(found, "val", "cat").write_text(f"2008_2 {scores[0]} 31 31 80 80\n2008_1 {scores[1]} 50 50 80 80\n")
    metrics, _ = score(voc_config(devkit, found), tmp_path)
    assert metrics["voc/AP/cat"] == pytest.approx(50)  # the hit comes first; as the order of images it would be 25
    voc_file(found, "val", "cat").write_text(f"2008_1 {scores[0]} 50 50 80 80\n2008_2 {scores[1]} 31 31 80 80\n")
    metrics, _ = score(voc_config(devkit, found), tmp_path)
    assert metrics["voc/AP/cat"] == pytest.approx(25)


def test_an_overlap_of_exactly_one_half_is_enough(devkit: Path, found: Path, tmp_path: Path) -> None:
    annotate(devkit, "2008_1", ("cat", (97, 86, 156, 121), 0))
    annotate(devkit, "2008_2")
    voc_file(found, "val", "cat").write_text("2008_1 0.9 102.4 95.3 146.4 118.3\n")
    metrics, _ = score(voc_config(devkit, found, classes=("cat",)), tmp_path)
    assert metrics["voc/mAP"] == pytest.approx(100)


def test_annotations_that_count_from_zero(devkit: Path, found: Path, tmp_path: Path) -> None:
    annotate(devkit, "2008_1", ("cat", (4, 4, 6, 6), 0))
    annotate(devkit, "2008_2")
    voc_file(found, "val", "cat").write_text("2008_1 0.9 5 5 7 7\n")
    metrics, said = score(voc_config(devkit, found, classes=("cat",)), tmp_path)
    assert metrics["voc/mAP"] == 0
    assert said[-1] == (
        "the detections fit annotations that count pixels from 0 better: zero_based=true gives voc/mAP 100.0 instead of 0.0"
    )
    metrics, said = score(voc_config(devkit, found, classes=("cat",), zero_based=True), tmp_path)
    assert metrics["voc/mAP"] == pytest.approx(100)
    assert len(said) == 1


def test_what_a_scorer_wrote_scores_as_it_said(tmp_path: Path) -> None:
    """Of a class whose name is no file name, and of images whose names have blanks."""
    from paperbench.data import voc as voc_data
    from paperbench.detection.evaluation.files import write_voc
    from paperbench.detection.evaluation.scoring import measure
    from tests.data.files import voc_object, voc_xml
    from tests.data.files import write_voc as write_devkit
    from tests.detection.evaluation.cases import found as detections

    classes = ("n/a", "dog")
    xml = voc_xml(voc_object("n/a", (3, 3, 6, 6)), voc_object("dog", (20, 10, 40, 30)))
    devkit = write_devkit(tmp_path, {"photo 1": xml, "photo 2": xml}, split="val")
    dataset = voc_data.read(root=str(tmp_path), split="val", classes=classes, zero_based=True)
    guesses = [detections([[3, 3, 7, 7], [20, 10, 40, 32]], [0.9, 0.8], [1, 2])] * 2
    write_voc(tmp_path / "found", "val", [str(record.image_id) for record in dataset.records], guesses, classes)
    config = voc_config(devkit, tmp_path / "found", classes=classes, zero_based=True)
    metrics, _ = score(config, tmp_path)
    direct = measure(dataset, guesses).metrics
    assert metrics == {name: pytest.approx(value) for name, value in direct.items() if name.startswith("voc")}
    assert metrics["voc/AP/n/a"] == pytest.approx(100)


def test_files_without_an_object_to_find_are_refused(devkit: Path, found: Path, tmp_path: Path) -> None:
    for name in ("2008_1", "2008_2"):
        annotate(devkit, name)
    with pytest.raises(DataError, match="all 1 objects are difficult of cat, dog: there is nothing to be found"):
        score(voc_config(devkit, found), tmp_path)


def test_keys_of_the_other_format_and_classes_named_twice() -> None:
    with pytest.raises(ConfigError, match="zero_based belongs to format=voc"):
        plan(ScoreFiles(format="coco", gt="a", dt="b", zero_based=True))
    with pytest.raises(ConfigError, match="classes: cat stands there twice"):
        plan(ScoreFiles(gt="a", dt="b", classes=("cat", "cat")))


# --- YOLO -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def yolo_folder(tmp_path: Path) -> Path:
    write_yolo(
        tmp_path / "data", {"a": "0 .5 .5 .5 .5\n1 .2 .2 .2 .2\n", "b": "0 .5 .5 .5 .5\n", "c": None}, split="val"
    )
    found = tmp_path / "yolo-found"
    found.mkdir()
    (found / "a.txt").write_text("0 .5 .5 .5 .5 .9\n1 .8 .8 .2 .2 .8\n")
    return tmp_path / "data"


def yolo_config(folder: Path, **changes: Any) -> ScoreFiles:
    options: dict[str, Any] = {"gt": str(folder), "dt": str(folder.parent / "yolo-found"), "split": "val"}
    return ScoreFiles(format="yolo", **(options | changes))


def test_yolo_files_are_scored_by_both_rules(yolo_folder: Path, tmp_path: Path) -> None:
    config = yolo_config(yolo_folder)
    assert plan(config)["data"] == f"yolo: val, 3 images, 3 classes, in {yolo_folder}"
    metrics, said = score(config, tmp_path)
    assert metrics["voc/AP/cat"] == pytest.approx(50)
    assert metrics["voc07/AP/cat"] == pytest.approx(100 * 6 / 11)
    assert metrics["coco/AP/cat"] == pytest.approx(100 * 51 / 101)
    assert metrics["voc/AP/dog"] == 0
    assert "coco/AP/cow" not in metrics  # no object
    assert "2 detections; none in 2 of 3 images" in said
    assert any("1 image without a label file" in text for text in said)
    only, _ = score(yolo_config(yolo_folder, classes=("0",), gt=str(yolo_folder / "data.yaml")), tmp_path)
    assert only["voc/mAP"] == pytest.approx(50)


def test_mistakes_with_yolo_files(yolo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="zero_based belongs to format=voc; YOLO's boxes are shares"):
        plan(yolo_config(yolo_folder, zero_based=True))
    with pytest.raises(ConfigError, match=r"gt is empty: gt=DIR names the folder of images and labels"):
        plan(yolo_config(yolo_folder, gt=""))
    with pytest.raises(ConfigError, match=r"classes: no class 'cwo' in .*data\.yaml"):
        plan(yolo_config(yolo_folder, classes=("cwo",)))
    with pytest.raises(DataError, match="no split 'test'; there are: train, val"):
        plan(yolo_config(yolo_folder, split="test"))
    with pytest.raises(DataError, match=r"no image has an object of cow: there is nothing to be found"):
        score(yolo_config(yolo_folder, classes=("cow",)), tmp_path)
    (yolo_folder / "labels" / "val" / "a.txt").write_text("0 .5 .5 .5\n")
    with pytest.raises(
        DataError, match=r"(?s)a\.txt:1: wrong number of columns.*Nothing was scored: correct the labels"
    ):
        score(yolo_config(yolo_folder), tmp_path)


# --- images that were held out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_images_that_training_held_out_are_those_that_are_scored(tmp_path: Path, kind: str) -> None:
    data = in_one_piece(tmp_path / "set", kind)
    data.split_seed = 3
    test = datasets.load(data, "test")
    folder = tmp_path / "found"
    guesses = [found_there(record.boxes.tolist(), [0.9], [1]) for record in test.records]
    if kind == "coco":
        folder.mkdir()
        write_coco(folder / "results.json", [r.image_id for r in test.records], test.category_ids, guesses)
    elif kind == "yolo":
        write_detections(folder, test, guesses)
    else:
        write_voc(folder, test.split, [str(record.image_id) for record in test.records], guesses, test.classes)
    config = ScoreFiles(
        format=data.name,
        gt=str(tmp_path / "set" / ("labels.json" if kind == "coco" else "")),
        dt=str(folder / ("results.json" if kind == "coco" else "")),
        split=data.train_split,
        classes=("car",) if kind == "voc" else (),
        test_fraction=0.3,
        split_seed=3,
    )

    assert "the 30 % of its images that split_seed=3 holds out" in plan(config)["data"]
    metrics, _ = score(config, tmp_path)
    assert metrics["coco/AP50" if kind == "coco" else "voc/mAP"] == pytest.approx(100)
    config.split_seed = 4
    with pytest.raises(DataError, match=r"Nothing was scored|no file for any|not in the split|images of"):
        score(config, tmp_path)
    config.test_fraction = 0.0
    if kind == "voc":
        return  # its files are named by the part
    assert score(config, tmp_path)[0]["coco/AP50"] < 50
