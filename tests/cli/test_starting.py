"""`paperbench init`: from a folder to an experiment that composes, and data that were read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.config.experiments import read_header


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments])


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images with a yeast each, in VOC's layout."""
    home = tmp_path / "my cells" / "VOCdevkit" / "VOCmine"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / folder).mkdir(parents=True)
    for name, split in (("a", "train"), ("b", "test")):
        Image.new("RGB", (60, 40), (200, 30, ord(name))).save(home / "JPEGImages" / f"{name}.jpg")
        (home / "ImageSets/Main" / f"{split}.txt").write_text(f"{name}\n")
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>30</ymax>"
        (home / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>60</width><height>40</height><depth>3</depth></size>"
            f"<object><name>yeast</name><bndbox>{box}</bndbox></object></annotation>"
        )
    return tmp_path / "my cells"


def test_it_writes_an_experiment_checks_the_data_and_says_how_to_train(voc: Path, tmp_path: Path) -> None:
    result = call("my-cells", str(voc))

    assert result.exit_code == 0, result.output
    said = result.stdout.splitlines()
    assert said[0].startswith("found   VOC's layout in ")
    assert "wrote   conf/experiment/my-cells.yaml: faster-rcnn on these data" in said
    assert max(map(len, said)) <= 118
    assert "voc: no faults" in said
    assert said[-2:] == ["try it  paperbench train my-cells --smoke", "run it  paperbench train my-cells"]
    config = compose("my-cells").resolved
    shipped = compose("faster-rcnn", ["data=voc"]).resolved
    assert config["data"]["root"] == str(voc)
    assert config["data"]["classes"] == ["yeast"]
    assert (config["data"]["train_split"], config["data"]["test_split"]) == ("train", "test")
    assert config["model"] == shipped["model"]
    assert config["optim"] == shipped["optim"]
    assert read_header(tmp_path / "conf/experiment/my-cells.yaml")["command"] == "paperbench train my-cells"


def test_another_experiment_on_the_same_data(voc: Path) -> None:
    result = call("mine", str(voc), "--experiment", "ssd", "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["experiment"], document["layout"], document["command"]) == ("ssd", "voc", "paperbench train mine")
    assert compose("mine").resolved["model"]["name"] == "ssd"
    refused = call("other", str(voc), "--experiment", "vae")
    assert refused.exit_code == 2
    assert "--experiment vae: does not read VOC's layout" in refused.output
    assert "faster-rcnn" in refused.output
    assert "no such experiment. Nearest: ssd" in call("other", str(voc), "--experiment", "sds").output


def test_faults_of_the_data_are_named_and_the_file_stays(voc: Path, tmp_path: Path) -> None:
    (voc / "VOCdevkit/VOCmine/JPEGImages/b.jpg").write_bytes(b"nothing")
    result = call("mine", str(voc))

    assert result.exit_code == 4
    assert "b.jpg" in result.output
    assert (tmp_path / "conf/experiment/mine.yaml").is_file()


def test_without_the_check(voc: Path) -> None:
    (voc / "VOCdevkit/VOCmine/JPEGImages/b.jpg").write_bytes(b"nothing")

    assert call("mine", str(voc), "--no-check").exit_code == 0


@pytest.mark.parametrize("name", ["12", "1e3", "true", "null"])
def test_names_that_yaml_reads_otherwise(voc: Path, name: str) -> None:
    assert call(name, str(voc), "--no-check").exit_code == 0
    assert compose(name).experiment == name


def test_nothing_is_overwritten_and_no_name_is_taken_twice(voc: Path, tmp_path: Path) -> None:
    call("mine", str(voc))
    before = (tmp_path / "conf/experiment/mine.yaml").read_text()

    assert (
        "conf/experiment/mine.yaml: exists; choose another name" in call("mine", str(voc), "--experiment", "ssd").output
    )
    assert (tmp_path / "conf/experiment/mine.yaml").read_text() == before
    assert "faster-rcnn: is the name of an experiment" in call("faster-rcnn", str(voc)).output
    assert "voc: is the name of an experiment or a data set" in call("voc", str(voc)).output
    for name in ("a/b", "..", "-x", "a b", "\u00e9"):
        assert call("--", name, str(voc)).exit_code == 2
    assert [path.name for path in (tmp_path / "conf/experiment").iterdir()] == ["mine.yaml"]


def test_masks_to_judge(tmp_path: Path) -> None:
    mask = Image.new("L", (40, 40))
    mask.paste(1, (10, 10, 30, 30))
    for name in ("images/case", "masks/case", "reference/images/a", "reference/images/b"):
        for file in (name, name.replace("reference/images", "reference/masks")):
            place = tmp_path / "set" / f"{file}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            mask.save(place)
    result = call("judge", "set")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "run it  paperbench estimate judge"
    config = compose("judge").resolved
    assert config["images"] == str(tmp_path / "set/images")
    assert config["reference"]["masks"] == str(tmp_path / "set/reference/masks")


def test_what_cannot_be_read_says_what_was_looked_for(voc: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()

    nothing = call("mine", "empty")
    assert nothing.exit_code == 2
    assert "none of the known layouts" in nothing.output
    assert "There is: nothing" in nothing.output
    assert max(map(len, nothing.output.splitlines())) < 119
    assert "no such folder" in call("mine", "nowhere").output
    assert "is a file" in call("mine", "notes.txt").output
    assert "--as coco: " in call("mine", str(voc), "--as", "coco").output
    assert not (tmp_path / "conf").exists()


def test_two_layouts_in_one_folder_are_asked_about(voc: Path) -> None:
    for split in ("train", "val"):
        (voc / "labels" / split).mkdir(parents=True)
        (voc / "labels" / split / "a.txt").write_text("0 .5 .5 1 1\n")
    result = call("mine", str(voc))

    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.output.splitlines()[1:]] == ["       --as voc", "       --as yolo"]
    assert "--as voc: VOC's layout" in result.output
    assert "--as yolo: the YOLO layout" in result.output
    assert call("mine", str(voc), "--as", "voc").exit_code == 0
