from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from paperbench.data.unpack import merge, unpack
from paperbench.errors import DataError, EnvironmentError_

FILES = {"set/a.txt": b"first", "set/deep/b.txt": b"second" * 1000}


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("set")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def found(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_files_arrive(tmp_path: Path, make) -> None:
    told: list[tuple[int, int]] = []
    unpack(make(tmp_path / "archive", FILES), tmp_path / "out", lambda *numbers: told.append(numbers))
    assert found(tmp_path / "out") == FILES
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/srv/evil", "..\\evil", "C:/evil"])
def test_names_that_leave_the_target_are_refused_before_anything_is_written(tmp_path: Path, make, name: str) -> None:
    archive = make(tmp_path / "archive", {**FILES, name: b"evil"})
    with pytest.raises(DataError, match=r"archive: refused: member '.*evil' would be written outside"):
        unpack(archive, tmp_path / "out", lambda *_: None)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "archive", "w") as archive:
        info = tarfile.TarInfo("set/link")
        info.type, info.linkname = kind, "/etc"
        archive.addfile(info)
    with pytest.raises(DataError, match="'set/link' is a link or device"):
        unpack(tmp_path / "archive", tmp_path / "out", lambda *_: None)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(DataError, match="'set/link' is a link or device"):
        unpack(tmp_path / "archive", tmp_path / "out", lambda *_: None)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    content = bytearray(make_zip(tmp_path / "zip", FILES).read_bytes())
    content[content.index(b"second") + 2] ^= 1
    (tmp_path / "zip").write_bytes(content)
    with pytest.raises(DataError, match="zip: damaged archive: Bad CRC"):
        unpack(tmp_path / "zip", tmp_path / "out", lambda *_: None)

    tar = make_tar(tmp_path / "tar", {"set/a": bytes(5000)})
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError, match="tar: damaged archive"):
        unpack(tar, tmp_path / "out", lambda *_: None)

    (tmp_path / "page").write_text("<html>")
    with pytest.raises(DataError, match="page: neither a tar nor a zip"):
        unpack(tmp_path / "page", tmp_path / "out", lambda *_: None)


def test_merging_keeps_what_is_there_and_puts_the_last_thing_last(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path, text in (
        ("kit/images/b", "new"),
        ("kit/lists/test", "new"),
        ("kit/lists/other", "new"),
        ("kit/notes/x", "new"),
    ):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    for path in ("kit/images/a", "kit/images/b", "kit/lists/train"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text("old")
    merge(source, target, last=target / "kit/lists/test")
    assert found(target) == {
        "kit/images/a": b"old",
        "kit/images/b": b"new",
        "kit/lists/train": b"old",
        "kit/lists/other": b"new",
        "kit/lists/test": b"new",
        "kit/notes/x": b"new",
    }
    assert found(source) == {}


def test_a_merge_that_fails_leaves_the_last_thing_away(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "kit").mkdir(parents=True)
    (source / "kit" / "images").write_text("a file")
    (source / "kit" / "list").write_text("new")
    (target / "kit" / "images").mkdir(parents=True)  # a folder where a file must go
    with pytest.raises(EnvironmentError_, match="cannot write"):
        merge(source, target, last=target / "kit" / "list")
    assert not (target / "kit" / "list").exists()


def test_a_whole_folder_can_be_the_last_thing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "coco" / "val").mkdir(parents=True)
    (source / "coco" / "val" / "1").write_text("new")
    (target / "coco" / "val").mkdir(parents=True)
    (target / "coco" / "val" / "0").write_text("half of an earlier attempt")
    merge(source, target, last=target / "coco" / "val")
    assert found(target) == {"coco/val/1": b"new"}
