"""Students and teachers: nets from flat images to logits.

B images, D = C * H * W pixels, K classes: (B, D) -> (B, K). Stacked nets (`engine.stacked_layers`) take and give an S before B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.distill import torchvision_nets
from paperbench.distill.config import NetConfig, TorchvisionNet
from paperbench.distill.torchvision_nets import Classifier

Pixels = float | tuple[float, float, float]
"""A mean or divisor of pixels: one number, or one for each channel."""


class Net(nn.Module):
    """`trunk`, then `head`: (B, D) -> (B, K).

    max_norm: largest Euclidean norm of the weights into one hidden or output unit; 0 sets none (Srivastava et al. 2014,
    section 5.1). Weights that a step took beyond it are scaled down before they are next used.
    """

    def __init__(self, trunk: nn.Sequential, head: nn.Linear, *, max_norm: float = 0.0) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.max_norm = max_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.max_norm > 0:
            self.constrain()
        return self.head(self.trunk(x))

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale weights down where their norm is too large; a second call changes nothing."""
        for weight in self.parameters():
            if weight.ndim > 1:
                norms = weight.flatten(1).norm(dim=1)
                # A trace below the limit, so that rounding does not leave a unit just above it.
                factors = torch.where(norms > self.max_norm, self.max_norm * (1 - 1e-6) / norms, 1.0)
                weight.mul_(factors.view(-1, *[1] * (weight.ndim - 1)))


def mlp(
    *,
    inputs: int,
    classes: int,
    widths: Sequence[int],
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float = 0.0,
) -> Net:
    """Return fully connected hidden layers of ReLUs (section 3)."""
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = width
    return _initialised(Net(nn.Sequential(*layers), nn.Linear(inputs, classes), max_norm=max_norm))


def convnet(
    *,
    size: Sequence[int],
    classes: int,
    width: int,
    blocks: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float = 0.0,
) -> Net:
    """Return a net for natural images: each block is a 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling.

    size: (C, H, W) of an image, whose pixels come as one flat vector. Channels: `width` in the first block, twice as many in each
    further one. Raises ValueError when the image is too small for the blocks.
    """
    channels, height, width_px = size
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    layers.append(nn.Unflatten(1, (channels, height, width_px)))
    for block in range(blocks):
        out = width << block
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width_px = out, height // 2, width_px // 2
    if min(height, width_px) < 1:
        raise ValueError(f"{blocks} blocks halve an image of {size[1]}x{size[2]} pixels to nothing")
    layers += [nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])]
    return _initialised(
        Net(nn.Sequential(*layers), nn.Linear(channels * height * width_px, classes), max_norm=max_norm)
    )


def _initialised(net: Net) -> Net:
    """Initialise layers before a ReLU as He et al. 2015, the head as Glorot and Bengio 2010, biases with 0."""
    for name, part in net.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            if name == "head":
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net


def parameters_in(net: nn.Module) -> int:
    """Number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


# --- from a configuration, or from weights in a file ------------------------------------------------------------------


def build(
    config: NetConfig | TorchvisionNet, *, size: tuple[int, int, int], classes: int, pretrained: bool = True
) -> Net | Classifier:
    """Return the untrained net, drawn from torch's global generator; one of torchvision with the weights that it starts from.

    pretrained: false leaves these out, for a net whose weights are about to be replaced. Raises ValueError for one that the images
    are too small for.
    """
    if isinstance(config, TorchvisionNet):
        return torchvision_nets.build(config, size=size, classes=classes, pretrained=pretrained)
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


def describe(config: NetConfig | TorchvisionNet) -> str:
    """Return `2x800`, `convnet 3x32, dropout 0.5`, `torchvision's resnet18` and the like."""
    if isinstance(config, TorchvisionNet):
        start = f" from {config.weights}" if config.weights else ""
        return f"torchvision's {config.arch}{start}{', new last layer' if config.head == 'new' else ''}"
    name = "" if config.name == "mlp" else f"{config.name} "
    extras = [f"dropout {config.dropout:g}"] if config.dropout else []
    extras += [f"norms up to {config.max_norm:.3g}"] if config.max_norm else []
    return ", ".join([f"{name}{config.layers}x{config.width}", *extras])


def from_weights(weights: Mapping[str, Any], *, size: tuple[int, int, int], classes: int) -> Net | Classifier:
    """Return the net that a state dict belongs to, with its weights: fully connected layers with ReLUs between them, whatever
    their names, a convnet of this package, or a classifier of torchvision.

    Raises ValueError with the reason, as half a sentence, for weights that are none of these or do not fit images of `size` and
    `classes`.
    """
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError("it holds no tensors")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} is not finite")
    if any(value.ndim == 4 for value in tensors.values()):
        if not _ours(tensors):
            return torchvision_nets.from_tensors(tensors, size=size, classes=classes)
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
        raise ValueError(f"it has {widths[-1]} classes, the data have {classes}")
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
    first = min(int(name.split(".")[1]) for name in tensors if name.startswith("trunk."))
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
def absorb_normalisation(
    net: Net | Classifier, *, mean: Pixels, std: Pixels, size: tuple[int, int, int] = (1, 1, 1)
) -> None:
    """Change the first layer so that pixels in 0..1 give the outputs that (pixel - mean) / std gave before; one number each, or
    one for each channel of images of `size`."""
    if isinstance(net, Classifier):
        net.normalise(mean, std)
        return
    if isinstance(mean, tuple) or isinstance(std, tuple):
        middle, scale = (by_pixel(value, size) for value in (mean, std))
        first = next(part for part in net.modules() if isinstance(part, torch.nn.Linear))
        first.bias.sub_(first.weight @ (middle / scale))
        first.weight.div_(scale)
        return
    first = next(part for part in net.modules() if isinstance(part, torch.nn.Linear))
    first.bias.sub_(first.weight.sum(1) * (mean / std))
    first.weight.div_(std)


def by_pixel(value: Pixels, size: tuple[int, int, int]) -> Tensor:
    """Return a mean or divisor for each of the D pixels of flat images of `size`, (D,)."""
    channels, height, width = size
    return torch.tensor(value).expand(channels).repeat_interleave(height * width)
