from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperbench.data import cub, parts
from paperbench.data.image_sets import CubData, PartsData
from paperbench.errors import DataError
from paperbench.stn import data as stn_data
from tests.data.files import write_image

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


def write_cub(root: Path, images: int = 12, *, in_turn: bool = True) -> Path:
    """The archive's layout: classes in turn, or one after the other as in the archive; three of nine images for testing."""
    folder = root / "CUB_200_2011"
    classes = [k % 3 if in_turn else k * 3 // images for k in range(images)]
    names = [f"{CLASSES[label]}/Bird_{k:04d}.jpg" for k, label in enumerate(classes)]
    for k, name in enumerate(names):
        write_image(folder / "images" / name, height=40 + k, width=60, seed=k)
    for file, lines in {
        "images.txt": names,
        "classes.txt": list(CLASSES),
        "image_class_labels.txt": [str(label + 1) for label in classes],
        "train_test_split.txt": [str(int(k // 3 % 3 != 0)) for k in range(images)],
    }.items():
        (folder / file).write_text("".join(f"{k} {line}\n" for k, line in enumerate(lines, start=1)))
    return folder


def test_splits_classes_and_squares(tmp_path: Path) -> None:
    write_cub(tmp_path)
    train, test = (cub.load(tmp_path, split, side=24) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 6)
    assert train.classes == ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert train.images.shape == (6, 3, 24, 24)
    assert len(cub.load(tmp_path / "CUB_200_2011", "test", side=24, limit=3)) == 3


def test_limits_spread_over_the_classes(tmp_path: Path) -> None:
    write_cub(tmp_path, 36, in_turn=False)
    labels = cub.load(tmp_path, "train", side=8).labels.tolist()
    assert labels == sorted(labels)
    assert cub.load(tmp_path, "train", side=8, limit=3).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("image_class_labels.txt", "1 1\n", "image 2 .* is not in all of"),
        ("image_class_labels.txt", "".join(f"{k} 9\n" for k in range(1, 13)), "class 9, which classes.txt lacks"),
        ("train_test_split.txt", "".join(f"{k} 2\n" for k in range(1, 13)), "it takes 0 or 1"),
        ("train_test_split.txt", "".join(f"{k} 0\n" for k in range(1, 13)), "no image belongs to the train split"),
        ("classes.txt", "1\n", "classes.txt:1: expected an id"),
        ("images.txt", "1 a\n1 b\n", "images.txt:2: expected an id of its own"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = write_cub(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message):
        cub.read(tmp_path, "train")


def test_images_that_do_not_decode_are_named(tmp_path: Path) -> None:
    folder = write_cub(tmp_path)
    broken = sorted((folder / "images").rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=broken.name):
        stn_data.check_birds(CubData(root=str(tmp_path), size=32))


def test_a_missing_archive_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image_class_labels\.txt") as error:
        stn_data.locate(CubData(root=str(tmp_path)))
    assert "paperbench data get cub" in str(error.value)
    with pytest.raises(ValueError, match="split"):
        cub.read(tmp_path, "validation")  # type: ignore[arg-type]


def test_parts_have_the_digits_of_their_split_and_a_sequence_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    whole = parts.digits.load("train")

    def load(split: str) -> object:
        asked.append(split)
        return whole

    monkeypatch.setattr(parts.digits, "load", load)
    train, test, other = (
        parts.generate(split, images=6, side=24, data_seed=seed)  # pyright: ignore[reportArgumentType]
        for split, seed in (("train", 0), ("test", 0), ("train", 1))
    )
    assert asked == ["train", "test", "train"]
    for one, another in ((train, test), (train, other)):
        assert not any(torch.equal(a, b) for a, b in zip(one.images, another.images, strict=True))


def test_generated_parts_tell_their_class() -> None:
    some = parts.generate("train", images=5, side=48)
    assert some.images.shape == (5, 3, 48, 48)
    assert len(some.classes) == 25
    assert torch.equal(parts.generate("train", images=2, side=48).images, some.images[:2])
    assert not torch.equal(parts.generate("test", images=5, side=48).images, some.images)
    counts = stn_data.check_birds(PartsData(train_images=30, test_images=10, size=48))
    assert counts["train: images"] == 30
    assert counts["test: classes"] == 25


def test_a_part_lies_in_each_half_near_the_middle() -> None:
    some = parts.generate("train", images=8, side=60).images.float()
    red, blue = some[:, 0], some[:, 2]
    rows = torch.arange(60.0)
    for ink in (red > 190, blue > 190):
        seen = ink.float().sum((1, 2))
        assert (seen > 4).all()
        height = (ink.float().sum(2) * rows).sum(1) / seen
        assert (height.sub(29.5).abs() < 0.25 * 60).all()
    left = torch.stack([(red > 190)[:, :, :30].sum((1, 2)), (blue > 190)[:, :, :30].sum((1, 2))])
    assert ((left > 2).sum(0) == 1).all()  # one of the two, never both
