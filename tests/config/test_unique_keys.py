"""A key that stands twice: every reader of hand-written JSON and YAML refuses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from paperbench.config import unique_keys
from paperbench.data import coco, yolo
from paperbench.errors import DataError, PaperbenchError
from paperbench.rca import nnunet
from paperbench.sweeps.launchers.settings import _from_file
from tests.data.files import coco_content, write_coco, write_yolo


def test_values_without_such_a_key_are_those_of_the_usual_readers() -> None:
    text = '{"a": [1, {"b": null, "c": {}}], "": NaN, "A": 2}'
    assert repr(unique_keys.load_json(text)) == repr(json.loads(text))
    text = "a: &x {b: 1, c: yes}\nd:\n  <<: *x\n  b: 2\ne: [1e3, 007]\n"
    assert unique_keys.load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"a": [{"b": 1, "c": 2, "b": 3}]}]'])
def test_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"the key '[ab]' stands twice in one object"):
        unique_keys.load_json(text)
    with pytest.raises(yaml.YAMLError, match=r"the key '[ab]' stands there twice"):
        unique_keys.load_yaml(text)


def test_annotations_that_would_replace_others(tmp_path: Path) -> None:
    path = write_coco(tmp_path, coco_content([{"image_id": 10, "category_id": 3, "bbox": [1, 2, 20, 20]}]))
    path.write_text(path.read_text()[:-1] + ', "annotations": []}')
    with pytest.raises(DataError, match=r"the key 'annotations' stands twice in one object"):
        coco.read(root=str(tmp_path), split="val2017")


def test_names_of_classes_that_would_replace_others(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 .5 .5 .5 .5\n"})
    path = tmp_path / "data.yaml"
    path.write_text(f"{path.read_text()}\nnames: [dog, cat, cow]\n")
    with pytest.raises(DataError, match=r"data\.yaml: not YAML: the key 'names' stands there twice"):
        yolo.read(root=tmp_path, split="train")


def test_labels_and_settings_that_would_replace_others(tmp_path: Path) -> None:
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "dataset.json").write_text('{"labels": {"liver": 1, "liver": 2}}')
    with pytest.raises(DataError, match=r"the key 'liver' stands twice"):
        nnunet.label_names(str(tmp_path / "imagesTs"))
    (tmp_path / "slurm.yaml").write_text("time: 1h\ntime: 2h\n")
    with pytest.raises(PaperbenchError, match=r"the key 'time' stands there twice"):
        _from_file(tmp_path / "slurm.yaml")
