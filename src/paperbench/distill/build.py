"""From the configuration to nets, and from weights in a file back to the net they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paperbench.distill.config import NetConfig
from paperbench.distill.nets import Net, convnet, mlp


def build(config: NetConfig, *, size: tuple[int, int, int], classes: int) -> Net:
    """The untrained net, drawn from torch's global generator. Raises ValueError for one that the images are too small for."""
    if config.name == "convnet":
        return convnet(
            size=size,
            classes=classes,
            width=config.width,
            blocks=config.layers,
            dropout=config.dropout,
            input_dropout=config.input_dropout,
            max_norm=config.max_norm,
        )
    channels, height, width = size
    return mlp(
        inputs=channels * height * width,
        classes=classes,
        widths=[config.width] * config.layers,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        max_norm=config.max_norm,
    )


def describe(config: NetConfig) -> str:
    """`2x800`, `convnet 3x32, dropout 0.5` and the like."""
    name = "" if config.name == "mlp" else f"{config.name} "
    extras = [f"dropout {config.dropout:g}"] if config.dropout else []
    extras += [f"norms up to {config.max_norm:.3g}"] if config.max_norm else []
    return ", ".join([f"{name}{config.layers}x{config.width}", *extras])


def from_weights(weights: Mapping[str, Any], *, size: tuple[int, int, int], classes: int) -> Net:
    """The net that a state dict belongs to, with its weights: fully connected layers with ReLUs between them, whatever their
    names, or a convnet of this room.

    Raises ValueError with the reason, as half a sentence, for weights that are none of these or do not fit images of that size
    and so many classes.
    """
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError("it holds no tensors")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
    if any(value.ndim == 4 for value in tensors.values()):
        return _convnet(tensors, size=size, classes=classes)
    return _mlp(tensors, size=size, classes=classes)


def _mlp(tensors: Mapping[str, Tensor], *, size: tuple[int, int, int], classes: int) -> Net:
    layers = {name.rpartition(".")[0]: value for name, value in tensors.items() if value.ndim == 2}
    biases = {name.rpartition(".")[0]: value for name, value in tensors.items() if value.ndim == 1}
    odd = [name for name, value in tensors.items() if value.ndim not in (1, 2)] + [n for n in biases if n not in layers]
    if odd or not layers:
        raise ValueError(f"it is no chain of fully connected layers ({odd[0] if odd else 'there is no matrix in it'})")
    widths = [weight.shape[0] for weight in layers.values()]
    expected = [size[0] * size[1] * size[2], *widths[:-1]]
    for (name, weight), inputs in zip(layers.items(), expected, strict=True):
        if weight.shape[1] != inputs:
            raise ValueError(f"{name or 'a layer'} takes {weight.shape[1]} values where {inputs} come in")
        if name in biases and len(biases[name]) != len(weight):
            raise ValueError(f"{name} has {len(weight)} units and {len(biases[name])} biases")
    if widths[-1] != classes:
        raise ValueError(f"it tells {widths[-1]} classes apart, the data have {classes}")
    net = mlp(inputs=expected[0], classes=classes, widths=widths[:-1])
    linear = [part for part in net.modules() if isinstance(part, torch.nn.Linear)]
    with torch.no_grad():
        for part, (name, weight) in zip(linear, layers.items(), strict=True):
            part.weight.copy_(weight)
            part.bias.copy_(biases.get(name, torch.zeros(len(weight))))
    return net


def _convnet(tensors: Mapping[str, Tensor], *, size: tuple[int, int, int], classes: int) -> Net:
    kernels = [value for value in tensors.values() if value.ndim == 4]
    # Dropout has no weights, but a number in the names of the layers behind it.
    first = min(int(name.split(".")[1]) for name in tensors if name.startswith("trunk.")) if _ours(tensors) else -1
    if first < 0:
        raise ValueError("it has convolutions, and only convnets of this program are understood")
    net = convnet(
        size=size, classes=classes, width=len(kernels[0]), blocks=len(kernels), input_dropout=0.5 if first == 2 else 0.0
    )
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(f"it does not fit these images ({' '.join(str(error).split())[:200]})") from None
    return net.eval()


def _ours(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("trunk.") for name in tensors) and "head.weight" in tensors


@torch.no_grad()
def absorb_normalisation(net: Net, *, mean: float, std: float) -> None:
    """Changes the first layer so that pixels in 0..1 do what (pixel - mean) / std did before."""
    first = next(part for part in net.modules() if isinstance(part, torch.nn.Linear))
    first.bias.sub_(first.weight.sum(1) * (mean / std))
    first.weight.div_(std)
