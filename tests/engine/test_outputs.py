"""Places that a user names: what is no output of the command stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.figures import new_figure, save, save_image
from paperbench.engine.files import write_atomic
from paperbench.engine.outputs import is_marked, output_file, output_folder, refuse_run_folder
from paperbench.errors import ConfigError, DataError, EnvironmentError_


def ours(path: Path) -> bool:
    return path.read_text() == "ours"


def place(path: Path, *inputs: Path) -> Path:
    return output_file(path, what="an answer", is_ours=ours, inputs=inputs)


def test_a_new_file_and_an_earlier_output_are_written(tmp_path: Path) -> None:
    assert place(tmp_path / "deep/er/new") == tmp_path / "deep/er/new"
    (tmp_path / "old").write_text("ours")
    assert place(tmp_path / "old") == tmp_path / "old"
    (tmp_path / "link").symlink_to("old")
    assert place(tmp_path / "link") == (tmp_path / "old").resolve()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "old"]


def test_everything_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "pipe-link").symlink_to("pipe")
    (tmp_path / "notes-link").symlink_to("notes")
    for name, reason in {
        "notes": "exists and is not an answer",
        "notes-link": "exists and is not an answer",
        "folder": "is a folder",
        "pipe": "is a pipe",
        "pipe-link": "is a pipe",
        "nowhere": "link to nothing",
        "notes/below": r"notes is a file, no folder",
        "pipe/below": "is a pipe",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises((ConfigError, EnvironmentError_), match=reason):
            place(tmp_path / name)
    with pytest.raises(ConfigError, match="a device"):
        place(Path("/dev/null"))


def test_folders_that_a_run_writes_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for folder in ("checkpoints", "detections/deep", "figures", "report", "drawn"):
        (run / folder).mkdir(parents=True)
    for file in ("config.yaml", "status.json", "checkpoints/last.pt", "detections/deep/cat.txt"):
        (run / file).write_text("the run's")
    (run / "drawn/first.x").write_text("ours")
    (run / "drawn/notes.y").write_text("somebody's")
    (tmp_path / "link").symlink_to(run / "checkpoints")
    for name in (
        "run/checkpoints/new.x",
        "run/checkpoints/a/new.x",
        "run/figures/new.x",
        "run/detections/new.x",
        "link/new.x",
    ):
        with pytest.raises(
            ConfigError, match=r"lies in .*run/(checkpoints|figures|detections), which the run .* writes; name"
        ):
            place(tmp_path / name)
    (run / "checkpoints/last.pt").unlink()
    (run / "checkpoints").rmdir()
    with pytest.raises(ConfigError, match="checkpoints, which the run"):
        place(run / "checkpoints/new.x")
    for name in ("new.x", "report/new.x", "export/new.x", "figures/predictions/new.x", "drawn/new.x", "other/new.x"):
        assert place(run / name) == run / name
    with pytest.raises(ConfigError, match="checkpoints, which the run"):
        refuse_run_folder(run / "checkpoints", "--out")


def test_an_input_is_refused_under_whatever_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("ours")
    (tmp_path / "link").symlink_to("source")
    os.link(source, tmp_path / "hard")
    for name in ("source", "link", "hard", "../" + tmp_path.name + "/source"):
        with pytest.raises(ConfigError, match="input"):
            place(tmp_path / name, tmp_path / "gone", source)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "a/b") == tmp_path / "a/b"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.*no folder"):
        output_folder(tmp_path / "file")
    with pytest.raises(EnvironmentError_, match=r"cannot write .*b: .*file is a file"):
        output_folder(tmp_path / "file/b")


# --- drawings ---------------------------------------------------------------------------------------------------------


def picture(path: Path) -> Path:
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(path)
    return path


def test_both_ways_of_drawing_leave_their_mark(tmp_path: Path) -> None:
    save(new_figure(1, 1), tmp_path / "figure.png", software=SOFTWARE)
    save_image(Image.new("L", (3, 4)), tmp_path / "image.png", software=SOFTWARE)
    save_image(Image.new("L", (3, 4)), tmp_path / "other.png")
    assert is_marked(tmp_path / "figure.png", SOFTWARE)
    assert is_marked(tmp_path / "image.png", SOFTWARE)
    assert not is_marked(tmp_path / "other.png", SOFTWARE)
    assert not is_marked(picture(tmp_path / "photo.png"), SOFTWARE)


def test_photographs_are_never_drawn_over(tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    with pytest.raises(ConfigError, match="is the input"):
        Drawings([photo], tmp_path)
    (tmp_path / "out").mkdir()
    picture(tmp_path / "out/photo.png")
    with pytest.raises(ConfigError, match="exists and is not a drawing"):
        Drawings([photo], tmp_path / "out")
    (tmp_path / "out/photo.png").unlink()
    (tmp_path / "out/photo.png").symlink_to(photo)
    with pytest.raises(ConfigError, match="is the input"):
        Drawings([photo], tmp_path / "out")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def drawn(image: Image.Image, place: Path) -> dict[str, int]:
    save_image(image, place, software=SOFTWARE)
    return {"width": image.width}


def test_names_are_distinct_and_a_second_time_replaces_the_first(tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
    images = [picture(tmp_path / "a/x.png"), picture(tmp_path / "b/X.png"), picture(tmp_path / "c/x-2.png")]
    for _ in range(2):
        drawings = Drawings(images, tmp_path / "out")
        answers = drawings.of_each(lambda number: opened(images[number]), drawn)
        assert [Path(str(a["picture"])).name for a in answers] == ["x.png", "X-2.png", "x-2-2.png"]
        assert all(a["width"] == 4 for a in answers)


def test_a_damaged_image_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    images = [picture(tmp_path / "a.png"), tmp_path / "bad.png", picture(tmp_path / "c.png")]

    def read(number: int) -> Image.Image:
        if not images[number].exists():
            raise DataError(f"{images[number]}: missing")
        return opened(images[number])

    drawings = Drawings(images, tmp_path / "out")
    with pytest.raises(DataError, match=r"bad\.png"):
        drawings.of_each(read, drawn)
    assert not (tmp_path / "out").exists()
    first, second, third = drawings.of_each(read, drawn, skip_damaged=True)
    assert (first["width"], third["width"]) == (4, 4)
    assert second == {"image": str(images[1]), "picture": None, "error": f"{images[1]}: missing"}
    with pytest.raises(DataError, match="missing"):
        Drawings(images[1:2], tmp_path / "none").of_each(lambda number: read(number + 1), drawn, skip_damaged=True)
    assert not (tmp_path / "none").exists()


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "x" * 250 + ".png"):
        write_atomic(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 3
