"""Teachers as TorchScript and ONNX: the same answers as the net in the file, and a reason for each that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paperbench.distill import executed_teachers
from paperbench.distill.batches import Images
from paperbench.distill.teachers import load_teacher
from paperbench.errors import DataError
from tests.distill.teacher_files import SIZE, Small, onnx_file, torchscript


def load(path: Path, classes: int = 4, **keys: bool) -> executed_teachers.ExecutedTeacher:
    return executed_teachers.load(path, size=SIZE, classes=classes, **{"probabilities": False, **keys})


def mean_by_channel(x: Tensor) -> Tensor:
    return x.view(-1, *SIZE).mean((2, 3)) @ torch.arange(12).view(3, 4).mul(0.1)


@pytest.mark.parametrize("flat", [False, True])
def test_torchscript_answers_as_its_net(tmp_path: Path, flat: bool) -> None:
    net = Small(flat=flat)
    teacher = load(torchscript(tmp_path / "t.pt", net, (2, 192) if flat else (2, *SIZE)))
    x = torch.rand(5, 192)
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), net(x if flat else x.view(5, *SIZE)))


@pytest.mark.parametrize(("batch", "kind"), [("N", "FLOAT"), (2, "FLOAT"), ("N", "UINT8"), (3, "UINT8")])
def test_onnx_answers_as_its_graph(tmp_path: Path, batch: int | str, kind: str) -> None:
    pytest.importorskip("onnxruntime")
    teacher = load(onnx_file(tmp_path / "t.onnx", shape=(batch, *SIZE), kind=kind))
    x = torch.randint(0, 256, (5, 192)) / 255
    expected = mean_by_channel(x * 255 if kind == "UINT8" else x)
    torch.testing.assert_close(teacher(x), expected, rtol=1e-4, atol=1e-4)
    teacher.normalise((0.1, 0.2, 0.3), 0.5)
    if kind == "FLOAT":
        moved = (x.view(5, *SIZE) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
        torch.testing.assert_close(teacher(x), mean_by_channel(moved), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    cases = [
        (
            onnx_file(tmp_path / "side.onnx", shape=("N", 3, 16, 16)),
            4,
            r"images of these data are \(N, 3, 8, 8\): data.side=16",
        ),
        (onnx_file(tmp_path / "grey.onnx", shape=("N", 1, 8, 8)), 4, r"is \(N, 1, 8, 8\)"),
        (
            onnx_file(tmp_path / "classes.onnx", shape=("N", *SIZE)),
            5,
            r"answers 2 images with \(2, 4\); 5 classes need \(2, 5\)",
        ),
        (onnx_file(tmp_path / "kind.onnx", shape=("N", *SIZE), kind="INT32"), 4, "a teacher takes float or uint8"),
        (tmp_path / "bad.onnx", 4, "no ONNX file that onnxruntime can load"),
        (torchscript(tmp_path / "k.pt", Small(6)), 4, r"answers 2 images with \(2, 6\)"),
        (torchscript(tmp_path / "l.pt", nn.Linear(5, 4), (2, 5)), 4, "takes no images of these data"),
    ]
    for path, classes, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            load(path, classes)
        assert str(path) in str(caught.value)


def test_probabilities_are_told_from_logits(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "p.pt", Small(softmax=True))
    pixels = torch.randint(0, 256, (12, *SIZE), dtype=torch.uint8)
    images = Images(pixels, torch.arange(12) % 4, ("a", "b", "c", "d"), "made")
    keys = {"train": images, "test": images, "mean": 0.0, "std": 1.0}
    with pytest.raises(DataError, match="teacher_values=probabilities"):
        load_teacher(path, **keys)  # type: ignore[arg-type]
    teacher = load_teacher(path, values="probabilities", **keys)  # type: ignore[arg-type]
    assert isinstance(teacher, executed_teachers.ExecutedTeacher)
    x = pixels.flatten(1) / 255
    with torch.no_grad():
        torch.testing.assert_close(teacher(x).softmax(1), Small(softmax=True)(x.view(-1, *SIZE)))


def test_a_state_dict_is_no_torchscript(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "s.pt")
    assert not executed_teachers.is_executed(tmp_path / "s.pt")
    assert executed_teachers.is_executed(torchscript(tmp_path / "t.pth", Small()))
