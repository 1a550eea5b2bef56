"""Boxes from pixels: the same ones each time, in any number of processes, and never searched twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from paperbench.data import shapes
from paperbench.detection.evaluation import recall
from paperbench.detection.proposals import search
from paperbench.detection.proposals.selective_search import selective_search, sliding_windows, tidy
from paperbench.detection.rcnn_config import ProposalConfig, SelectiveSearchConfig
from paperbench.errors import ConfigError, DataError


def scenes(images: int = 3, size: int = 64):
    return shapes.read(split="test", images=images, size=size, data_seed=0, max_objects=3, empty=0.0)


def test_selective_search_finds_the_objects_and_the_same_boxes_again() -> None:
    dataset = scenes(size=128)
    first = [selective_search(dataset.decode(index)) for index in range(3)]
    again = [selective_search(dataset.decode(index)) for index in reversed(range(3))][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert len(np.unique(a, axis=0)) == len(a)
    assert recall.evaluate(dataset.records, first).metrics()["proposals/recall50@100"] >= 80


def test_wide_images_are_searched_smaller_and_answered_in_their_own_pixels() -> None:
    pixels = np.full((40, 90, 3), 200, np.uint8)
    pixels[8:30, 20:70] = (20, 40, 160)
    boxes = selective_search(pixels, width=45)
    assert boxes.max() <= 90
    best = recall._padded_overlap([boxes], [np.array([[20.0, 8, 70, 30]])]).max()  # pyright: ignore[reportPrivateUsage]
    assert best > 0.8


def test_windows_cover_the_image_to_its_borders() -> None:
    windows = sliding_windows(40, 60, sizes=[0.5, 1.0], ratios=[0.5, 1.0, 2.0], step=0.5)
    assert windows.min(0).tolist()[:2] == [0, 0]
    assert windows.max(0).tolist()[2:] == [60, 40]
    assert (windows[:, 2:] > windows[:, :2]).all()
    square = windows[np.isclose(windows[:, 2] - windows[:, 0], 20) & np.isclose(windows[:, 3] - windows[:, 1], 20)]
    assert sorted(set(square[:, 0].tolist())) == [0, 10, 20, 30, 40]
    np.testing.assert_array_equal(windows, sliding_windows(40, 60, sizes=[0.5, 1.0], ratios=[0.5, 1.0, 2.0], step=0.5))


def test_tidy_clips_drops_and_keeps_the_order() -> None:
    boxes = np.array([[-5, 0, 4, 9], [5, 5, 5.5, 9], [0, 0, 4, 9], [1, 1, 30, 30]], np.float32)
    assert tidy(boxes, 10, 20, min_side=1).tolist() == [[0, 0, 4, 9], [1, 1, 20, 10]]


def test_what_was_found_is_not_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = scenes(), ProposalConfig(workers=1)
    searched: list[tuple[int, ...]] = []
    real = search.search_image
    monkeypatch.setattr(
        search, "search_image", lambda pixels, settings: searched.append(pixels.shape) or real(pixels, settings)
    )

    half = search.search_dataset(dataset, config, cache=tmp_path, part=slice(0, None, 2))
    assert sorted(half) == [0, 2]
    whole = search.search_dataset(dataset, config, cache=tmp_path)
    assert len(searched) == 3
    np.testing.assert_array_equal(whole[2], half[2])

    damaged = next(tmp_path.rglob("*.npy"))
    damaged.write_bytes(b"\x93NUMPY")
    search.search_dataset(dataset, config, cache=tmp_path)
    assert len(searched) == 4
    other = ProposalConfig(workers=1, selective_search=SelectiveSearchConfig(base_k=50))
    search.search_dataset(dataset, other, cache=tmp_path)
    assert len(searched) == 7


def test_boxes_of_earlier_versions_are_found(tmp_path: Path) -> None:
    dataset, config = scenes(images=1), ProposalConfig(workers=1)
    pixels = dataset.decode(0)
    digest = hashlib.sha256(json.dumps([search.settings_of(config), pixels.shape], sort_keys=True).encode())
    digest.update(pixels.tobytes())
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    folder = tmp_path / digest.hexdigest()[:2]
    folder.mkdir()
    np.save(folder / f"{digest.hexdigest()}.npy", boxes)
    np.testing.assert_array_equal(search.search_dataset(dataset, config, cache=tmp_path)[0], boxes)


def test_a_stop_keeps_what_was_found(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    found = search.search_dataset(scenes(), ProposalConfig(workers=1), cache=tmp_path, stopped=lambda: next(looks))
    assert sorted(found) == [0, 1]
    assert len(list(tmp_path.rglob("*.npy"))) == 2


@pytest.mark.slow
def test_processes_change_no_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FEW", 1)
    one = search.search_dataset(scenes(), ProposalConfig(workers=1), cache=tmp_path / "one")
    two = search.search_dataset(scenes(), ProposalConfig(workers=2), cache=tmp_path / "two")
    for index in range(3):
        np.testing.assert_array_equal(one[index], two[index])
    assert {p.name for p in (tmp_path / "one").rglob("*.npy")} == {p.name for p in (tmp_path / "two").rglob("*.npy")}


def test_what_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"proposals\.run: method=rpn needs"):
        search.check(ProposalConfig(method="rpn"))
    with pytest.raises(ConfigError, match=r"proposals\.test_file: method=file needs one"):
        search.check(ProposalConfig(method="file"), ("test",))
    with pytest.raises(DataError, match="no such file"):
        search.check(ProposalConfig(method="file", train_file=str(tmp_path / "p.npz")))
    search.check(ProposalConfig(method="sliding-windows"))
