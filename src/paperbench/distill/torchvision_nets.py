"""Classifiers of torchvision as students and teachers: nets from flat images to logits, by the name of their architecture.

A state dict of a classifier has no name in it. Its architecture is the one of torchvision whose parameters have the same names and
shapes, all but the last layer's number of classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from paperbench.config.suggest import nearest
from paperbench.distill.config import TorchvisionNet
from paperbench.errors import ConfigError, DataError

IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that torchvision's weights were trained with."""
_AUXILIARY: Final = ("AuxLogits.", "aux1.", "aux2.")
_COUNTER: Final = "num_batches_tracked"
_CHANNELS: Final = 3


class Classifier(nn.Module):
    """(B, D) flat images of `size` (C, H, W), in 0..1 -> (B, K) logits of `body`.

    Pixels are normalised by `mean` and `std`, (3, 1, 1) each; grey images become three equal channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, *, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.body = body
        self.size = size
        self.max_norm = 0.0
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        images = x.unflatten(-1, self.size)
        if self.size[0] == 1:
            images = images.expand(-1, _CHANNELS, -1, -1)
        answer = self.body((images - self.mean) / self.std)
        return answer if isinstance(answer, Tensor) else answer[0]  # behind it are auxiliary classifiers

    def constrain(self) -> None:
        """Do nothing: these nets have no limit on their norms."""

    def normalise(self, mean: Any, std: Any) -> None:
        """Set the normalisation: a number, or one for each channel."""
        for buffer, value in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.as_tensor(value, dtype=buffer.dtype).reshape(-1, 1, 1))


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return torchvision.models.list_models(module=torchvision.models)


class _WithoutWeights(TorchFunctionMode):
    """Makes parameters without memory. Unlike the device `meta` it leaves numbers alone that a net computes its widths from."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _body(arch: str, classes: int, *, auxiliary: bool = False) -> nn.Module:
    extra: dict[str, Any] = {}
    if arch in ("googlenet", "inception_v3"):
        extra = {"aux_logits": auxiliary, "init_weights": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchvision.models.get_model(arch, weights=None, num_classes=classes, **extra)


def check(config: TorchvisionNet, key: str, *, size: tuple[int, int, int], classes: int) -> int:
    """Return the number of weights. Raises ConfigError or DataError for an architecture, images or weights that do not fit."""
    if config.arch not in names():
        near = nearest(config.arch, names()) or names()[:8]
        raise ConfigError(f"{key}.arch={config.arch}: no classifier of torchvision. Nearest: {', '.join(near)}")
    with _WithoutWeights():
        net = Classifier(_body(config.arch, classes), size=size).to("meta").eval()
    try:
        net(torch.zeros(2, size[0] * size[1] * size[2], device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{key}.arch={config.arch}: takes no images of {size[1]}x{size[2]} pixels ({first}); try data.side=224"
        ) from None
    if config.weights and config.weights != "DEFAULT":
        _fitting(config, key, classes)
    if not config.weights and config.head != "keep":
        raise ConfigError(f"{key}.head={config.head}: belongs to {key}.weights, and there are none")
    return sum(parameter.numel() for parameter in net.parameters())


def build(config: TorchvisionNet, *, size: tuple[int, int, int], classes: int, pretrained: bool = True) -> Classifier:
    """Return the net, its untrained layers drawn from torch's global generator. Without `pretrained` no weights are read."""
    body = _body(config.arch, classes)
    if pretrained and config.weights:
        body.load_state_dict({**body.state_dict(), **_fitting(config, "model", classes)})
    return Classifier(body, size=size)


def _fitting(config: TorchvisionNet, key: str, classes: int) -> dict[str, Tensor]:
    """Return the tensors of `weights` that the net takes over."""
    if config.weights == "DEFAULT":
        try:
            tensors = dict(torchvision.models.get_model(config.arch, weights="DEFAULT").state_dict())
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{key}.weights=DEFAULT: torchvision could not fetch the weights of {config.arch}: {error}; download them "
                "elsewhere and give the file"
            ) from error
    else:
        tensors = read_tensors(Path(config.weights), f"{key}.weights={config.weights}")
    where = f"{key}.weights={config.weights}"
    found = architecture(tensors, first=config.arch)
    if found is None:
        raise DataError(f"{where}: not the weights of {config.arch}, nor of another classifier of torchvision")
    if found != config.arch:
        raise DataError(f"{where}: holds the weights of {found}, not of {config.arch}: {key}.arch={found}")
    count = classes_in(found, tensors)
    if config.head == "new":
        head = _head(found)
        tensors = {name: value for name, value in tensors.items() if name not in head}
    elif count != classes:
        raise DataError(
            f"{where}: has {count} classes, the data have {classes}; {key}.head=new replaces its last layer by an untrained one"
        )
    return {name: value for name, value in tensors.items() if not name.startswith(_AUXILIARY)}


def read_tensors(path: Path, where: str) -> dict[str, Tensor]:
    """Read a state dict, also one within a checkpoint; nothing in the file is executed. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{where}: no such file; it takes a file with a state dict")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # files that are no checkpoints fail in half a dozen ways with one meaning
        raise DataError(
            f"{where}: holds no plain tensors that could be read; store a state dict, torch.save(net.state_dict(), FILE)"
        ) from error
    for nested in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(nested), Mapping):
            content = content[nested]
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: holds a {type(content).__name__} and no state dict")
    return plain(content)


def plain(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors in float32, without the prefixes that DataParallel and torch.compile put before their names."""
    tensors = {
        str(name).removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


# --- architectures by their parameters --------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _shapes(arch: str, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    with _WithoutWeights():
        body = _body(arch, classes, auxiliary=arch in ("googlenet", "inception_v3"))
    return {name: tuple(value.shape) for name, value in body.state_dict().items() if not name.endswith(_COUNTER)}


@lru_cache(maxsize=256)
def _head(arch: str) -> frozenset[str]:
    """Return the names of the tensors whose shape is that of the number of classes."""
    other = _shapes(arch, 7)
    return frozenset(name for name, shape in _shapes(arch).items() if other[name] != shape)


def architecture(tensors: Mapping[str, Tensor], *, first: str = "") -> str | None:
    """Return the classifier of torchvision with parameters of these names and shapes; None where there is none.

    first: an architecture that is tried before all others.
    """
    given = _given(tensors)
    order = sorted(names(), key=lambda name: name != first)
    return next((name for name in order if _matches(name, given)), None)


def _given(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape)
        for name, value in tensors.items()
        if not name.endswith(_COUNTER) and not name.startswith(_AUXILIARY)
    }


def _matches(arch: str, given: Mapping[str, tuple[int, ...]]) -> bool:
    own = {name: shape for name, shape in _shapes(arch).items() if not name.startswith(_AUXILIARY)}
    if own.keys() != given.keys():
        return False
    apart = {name for name, shape in own.items() if shape != given[name]}
    return not apart or (apart <= _head(arch) and all(own[name][1:] == given[name][1:] for name in apart))


def classes_in(arch: str, tensors: Mapping[str, Tensor]) -> int:
    """Return the number of classes that a state dict of this architecture has."""
    return next(len(tensors[name]) for name in _shapes(arch) if name in _head(arch) and not name.startswith(_AUXILIARY))


def from_tensors(tensors: Mapping[str, Any], *, size: tuple[int, int, int], classes: int) -> Classifier:
    """Return the classifier of a state dict: a bare one of torchvision, for pixels in 0..1, or one that this program wrote.

    Raises ValueError, as half a sentence, for weights of no classifier of torchvision, or with another number of classes.
    """
    own = plain(tensors)
    ours = any(name.startswith("body.") for name in own)
    body = {name.removeprefix("body."): value for name, value in own.items() if not ours or name.startswith("body.")}
    found = architecture(body)
    if found is None:
        raise ValueError(
            "it has convolutions, and only convnets of this program and classifiers of torchvision can be read"
        )
    if (count := classes_in(found, body)) != classes:
        raise ValueError(f"it is a {found} of {count} classes, the data have {classes}")
    kept = {name: value for name, value in body.items() if not name.startswith(_AUXILIARY)}
    module = _body(found, classes)
    module.load_state_dict({**module.state_dict(), **kept})
    net = Classifier(module, size=size)
    net.normalise(own["mean"], own["std"]) if ours else net.normalise(0.0, 1.0)
    return net.eval()
