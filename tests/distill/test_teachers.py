"""Teachers in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paperbench.data.image_sets import ImageSet
from paperbench.distill.batches import Images
from paperbench.distill.nets import Net
from paperbench.distill.teachers import StoredLogits, find_teachers, load_teacher
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.errors import CheckpointError, ConfigError, DataError, PaperbenchError


def _images(count: int, seed: int) -> Images:
    pixels = torch.randint(0, 256, (count, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % 3
    return Images.of(
        ImageSet(images=pixels, labels=labels, classes=("a", "b", "c"), name="made up"), torch.device("cpu")
    )


TRAIN, TEST = _images(9, 0), _images(6, 1)


def _load(path: Path, mean: float = 0.0, std: float = 1.0) -> Net | StoredLogits:
    teacher = load_teacher(path, train=TRAIN, test=TEST, mean=mean, std=std)
    assert isinstance(teacher, Net | StoredLogits)
    return teacher


def _foreign() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("wrapping", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_in_any_wrapper(tmp_path: Path, wrapping: str | None) -> None:
    net = _foreign()
    content = net.state_dict()
    torch.save(content if wrapping is None else {wrapping: content, "epoch": 3}, tmp_path / "net.pth")
    found = _load(tmp_path / "net.pth")
    assert isinstance(found, Net)
    batch = next(TRAIN.batches(9))
    torch.testing.assert_close(found(batch), net(batch))


def test_the_normalisation_of_its_training_is_taken_into_account(tmp_path: Path) -> None:
    net = _foreign()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = _load(tmp_path / "net.pth", mean=0.5, std=0.25)
    assert isinstance(found, Net)
    batch = next(TRAIN.batches(9))
    torch.testing.assert_close(found(batch), net((batch - 0.5) / 0.25), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logits.npy", "logits.npz", "logits.pt"])
def test_logits_in_any_of_their_forms(tmp_path: Path, name: str) -> None:
    logits = np.random.default_rng(0).normal(size=(9, 3))
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, logits)
    elif name.endswith("npz"):
        np.savez(path, logits=logits, test_logits=logits[:6])
    else:
        torch.save({"logits": torch.from_numpy(logits), "images": TRAIN.fingerprint}, path)
    found = _load(path)
    assert isinstance(found, StoredLogits)
    torch.testing.assert_close(found.train, torch.from_numpy(logits).float())
    assert (found.test is not None) == name.endswith("npz")


def test_logits_of_other_images_are_refused(tmp_path: Path) -> None:
    torch.save({"logits": torch.zeros(9, 3), "images": TEST.fingerprint}, tmp_path / "logits.pt")
    with pytest.raises(DataError, match=r"logits\.pt: its logits are of other training images than made up"):
        _load(tmp_path / "logits.pt")


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((8, 3)), "logits is 8 x 3; 9 training images and 3 classes need 9 x 3"),
        (np.zeros((9, 4)), "logits is 9 x 4"),
        (np.where(np.arange(27).reshape(9, 3) == 14, np.nan, 0.0), "logits, row 4: not finite"),
    ],
)
def test_logits_that_do_not_fit_are_named(tmp_path: Path, logits: np.ndarray, message: str) -> None:
    np.save(tmp_path / "l.npy", logits)
    with pytest.raises(DataError, match=message):
        _load(tmp_path / "l.npy")


def test_an_archive_without_logits(tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", values=np.zeros(3))
    with pytest.raises(DataError, match="has no array called logits; it has values"):
        _load(tmp_path / "l.npz")


def test_a_net_of_other_images_is_refused_and_the_way_out_named(tmp_path: Path) -> None:
    torch.save(nn.Linear(20, 3).state_dict(), tmp_path / "net.pth")
    with pytest.raises(DataError, match=r"takes 20 values where 16 come in\. Any other net can teach by its logits"):
        _load(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["net.pth", "l.npy"])
def test_a_file_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a net")
    with pytest.raises((CheckpointError, DataError), match=name) as caught:
        _load(tmp_path / name)
    assert isinstance(caught.value, PaperbenchError)


def test_a_file_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    torch.save({"net": _foreign()}, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="no plain tensors"):
        _load(tmp_path / "whole.pt")


# --- where they are ---------------------------------------------------------------------------------------------------


def _stage(run: Path, name: str) -> Path:
    CheckpointStore(run / "checkpoints" / name).save({"weights": _foreign().state_dict()}, step=1)
    return run / "checkpoints" / name


def test_a_run_gives_its_teacher_or_all_of_its_ensemble(tmp_path: Path) -> None:
    single, several, last = tmp_path / "single", tmp_path / "several", tmp_path / "last"
    teacher = _stage(single, "teacher")
    _stage(single, "baseline")
    assert find_teachers(str(single)) == [teacher]
    members = [_stage(several, f"teacher-{number}") for number in range(11)]
    assert find_teachers(str(several)) == members
    distilled = _stage(last, "distilled")
    assert find_teachers(str(last)) == [distilled]


def test_any_stage_of_a_run_can_be_named(tmp_path: Path) -> None:
    stage = _stage(tmp_path / "run", "baseline")
    assert find_teachers(str(stage)) == [stage]
    assert isinstance(_load(stage), Net)
    assert isinstance(_load(stage / "last.pt"), Net)


@pytest.mark.parametrize("made", ["nothing", "empty", "no nets"])
def test_places_without_a_teacher(tmp_path: Path, made: str) -> None:
    place = tmp_path / "run"
    if made != "nothing":
        (place / ("checkpoints" if made == "no nets" else ".")).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"teacher=.*run"):
        find_teachers(str(place))
