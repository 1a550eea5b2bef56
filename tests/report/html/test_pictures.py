"""Pictures within their budget, and a word about every one that is not shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from paperbench.records.record import read_run
from paperbench.report.html import pictures
from paperbench.report.html.pictures import Gallery, PictureFile, caption_of, encode
from tests.report.html import made


def wanted(path: Path) -> PictureFile:
    return PictureFile(file=path, caption=caption_of(path), source=f"run/{path.name}")


def decoded(gallery: Gallery) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(picture.data))) for picture in gallery.pictures]


def total(gallery: Gallery) -> int:
    return sum(len(base64.b64decode(picture.data)) for picture in gallery.pictures)


def test_a_picture_is_shown_as_it_is_where_there_is_room(tmp_path: Path) -> None:
    path = made.picture(tmp_path / "some_detections.png", 300)
    gallery = encode([wanted(path)], budget=1_000_000, most=5)

    assert gallery.left_out == ()
    assert gallery.pictures[0].caption == "some detections"
    assert (gallery.pictures[0].width, gallery.pictures[0].height) == decoded(gallery)[0].size == (300, 300)


def test_the_budget_holds_and_the_small_leave_room_for_the_large(tmp_path: Path) -> None:
    files = [made.picture(tmp_path / f"{index}.png", 24, seed=index) for index in range(4)]
    files.append(made.picture(tmp_path / "large.png", 300))
    gallery = encode(list(map(wanted, files)), budget=100_000, most=9)

    assert len(gallery.pictures) == 5
    assert total(gallery) <= 100_000
    assert len(base64.b64decode(gallery.pictures[-1].data)) > 100_000 / 5  # more than an equal share


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    files = [made.picture(tmp_path / f"{index}.png", 200, seed=index) for index in range(3)]
    gallery = encode(list(map(wanted, files)), budget=100, most=2)

    assert gallery.pictures == ()
    assert gallery.left_out == (
        "1 more pictures, run/2.png and those after it",
        "run/0.png: too large for its share of the page",
        "run/1.png: too large for its share of the page",
    )


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = made.picture(tmp_path / "cut.png", 100)
    path.write_bytes(path.read_bytes()[:1_000])
    (tmp_path / "text.png").write_text("no picture")
    gallery = encode([wanted(path), wanted(tmp_path / "text.png")], budget=1_000_000, most=5)

    assert gallery.pictures == ()
    assert [text.split(":")[0] for text in gallery.left_out] == ["run/cut.png", "run/text.png"]
    assert all("cannot be read" in text for text in gallery.left_out)


def test_a_picture_that_would_fill_the_memory_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 100)
    gallery = encode([wanted(made.picture(tmp_path / "a.png", 11))], budget=1_000_000, most=5)

    assert gallery.left_out == ("run/a.png: 11 x 11 pixels are too many to show",)


def test_transparent_pictures_bring_their_paper(tmp_path: Path) -> None:
    Image.new("RGBA", (300, 300), (0, 0, 0, 0)).save(tmp_path / "a.png")
    (picture,) = decoded(encode([wanted(tmp_path / "a.png")], budget=100_000, most=5))

    assert picture.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_digits_are_enlarged_in_whole_pixels(tmp_path: Path) -> None:
    Image.new("L", (28, 28), 7).save(tmp_path / "a.png")
    (picture,) = encode([wanted(tmp_path / "a.png")], budget=100_000, most=5).pictures

    assert picture.width == picture.height == 28 * 8


def test_curves_are_not_shown_twice(tmp_path: Path) -> None:
    run = read_run(made.run(tmp_path / "run", pictures=[("losses.png", 8), ("samples.png", 8)]), name="run")

    assert [picture.caption for picture in pictures.of_run(run, drawn=True).pictures] == ["samples"]
    assert [picture.caption for picture in pictures.of_run(run, drawn=False).pictures] == ["losses", "samples"]


def test_of_several_runs_each_kind_is_shown_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_OF_RUNS", 4)
    runs = [
        read_run(made.run(tmp_path / name, pictures=[("a.png", 8), ("b.png", 8)]), name=name)
        for name in ("x", "y", "z")
    ]
    gallery = pictures.of_runs(runs, lambda run: f"<{run.name}>", drawn=True)

    assert [picture.caption for picture in gallery.pictures] == ["a: <x>", "a: <y>", "b: <x>", "b: <y>"]
    assert gallery.left_out == ("2 more pictures of the same kinds lie in the runs' figures folders",)
