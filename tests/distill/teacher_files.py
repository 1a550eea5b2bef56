"""Nets in files that tests write: TorchScript by tracing, ONNX by hand, state dicts of torchvision."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

SIZE = (3, 8, 8)


class Small(nn.Module):
    """A convolution and its mean: no size of image is its own."""

    def __init__(self, classes: int = 4, *, flat: bool = False, softmax: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, classes, 3)
        self.flat, self.softmax = flat, softmax

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 3, 8, 8) if self.flat else x
        logits = self.conv(x).mean((2, 3)) * 5
        return logits.softmax(1) if self.softmax else logits


def torchscript(path: Path, net: nn.Module, shape: tuple[int, ...] = (2, *SIZE)) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net.eval(), torch.rand(shape)), str(path))
    return path


def onnx_file(
    path: Path, *, shape: tuple[object, ...], kind: str = "FLOAT", classes: int = 4, softmax: bool = False
) -> Path:
    """A graph by hand: the mean of all pixels of each channel times a matrix."""
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto
    channels = shape[1]
    assert isinstance(channels, int)
    weights = [0.1 * k for k in range(channels * classes)]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=tensor.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y" if not softmax else "z"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", getattr(tensor, kind), list(shape))],
        [helper.make_tensor_value_info("y", tensor.FLOAT, [shape[0], classes])],
        [
            helper.make_tensor("axes", tensor.INT64, [2], [2, 3]),
            helper.make_tensor("w", tensor.FLOAT, [channels, classes], weights),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def write_teachers(folder: Path, *, side: int, classes: int) -> None:
    """`teacher.pth`, a squeezenet's state dict, `teacher.pt`, the same as TorchScript, and `teacher.onnx`, for coloured images."""
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=classes)
    torch.save(net.state_dict(), folder / "teacher.pth")
    torchscript(folder / "teacher.pt", net, (2, 3, side, side))
    onnx_file(folder / "teacher.onnx", shape=("N", 3, side, side), classes=classes)
