"""Several nets of one architecture as one: their layers stacked along a first axis, their products batched.

`stack([net, net, …])` makes a module of the same classes whose every `nn.Linear` is a `StackedLinear`. Its `forward` is the
net's own, so a net that is to be stacked must not assume the number of axes before the last: (B, in) -> (B, out) becomes
(S, B, in) -> (S, B, out). Nets of different widths are padded with zeros. Padding stays zero in training, and changes no
model, as long as the net's activations map 0 to 0 (tanh, ReLU) and whatever else comes in beside activations (noise, latent
variables) is zero there: then every product with padding, and every gradient of it, is zero.

`shared_input`: a first layer that sees the same (B, in) for all models multiplies it with all of their weights at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class _BatchedLinear(torch.autograd.Function):
    """Written out because autograd's own gradient of `bmm` comes transposed: copying it into the layout of the weights would
    cost more than the product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        transposed = weight.transpose(1, 2)
        return torch.bmm(x, transposed) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if wanted[0] else None,
            torch.bmm(gradient.transpose(1, 2), x) if wanted[1] else None,
            gradient.sum(1) if wanted[2] else None,
        )


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (S, B, in), weight (S, out, in), bias (S, out) or None -> (S, B, out); in autocast's type where that is on."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    result = _BatchedLinear.apply(x, weight, bias)
    assert isinstance(result, Tensor)
    return result


class StackedLinear(nn.Module):
    """S linear layers: weight (S, out, in), bias (S, out) or None.

    Takes (B, in), the same input for all models, or (S, ..., in), one for each; gives (S, B, out) or (S, ..., out).
    """

    def __init__(self, models: int, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(models, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(models, out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        models, out, _ = self.weight.shape
        if x.ndim == 2:
            together = F.linear(x, self.weight.flatten(0, 1), None if self.bias is None else self.bias.flatten())
            return together.unflatten(1, (models, out)).transpose(0, 1)
        rows = x.reshape(models, -1, x.shape[-1])
        return batched_linear(rows, self.weight, self.bias).reshape(*x.shape[:-1], out)


class StackedDropout(nn.Module):
    """Dropout whose masks are those that each model would draw alone.

    A model alone draws them from torch's global generator, seeded for the step; here each has a generator of its own
    (`use`), seeded alike, and draws for its own width.
    """

    def __init__(self, p: float, models: int) -> None:
        super().__init__()
        self.p = p
        self.streams: Sequence[torch.Generator] = ()
        self.widths: Sequence[int] = ()
        self.models = models

    def use(self, streams: Sequence[torch.Generator]) -> None:
        """Set the generators of the coming step, one for each model."""
        self.streams = streams

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if len(self.streams) != self.models:
            raise ValueError(
                f"dropout of {self.models} models has generators for {len(self.streams)}: call use() before a step"
            )
        mask = torch.zeros_like(x)
        for number, stream in enumerate(self.streams):
            width = self.widths[number] if self.widths else x.shape[-1]
            mask[number, ..., :width] = x.new_empty((*x.shape[1:-1], width)).bernoulli_(1 - self.p, generator=stream)
        return x * mask.div_(1 - self.p)


def stack(modules: Sequence[M]) -> M:
    """Return one module that computes what all of `modules` do, on copies of their weights.

    Raises TypeError for a layer with parameters or buffers other than `nn.Linear`, and ValueError for modules of different
    structure.
    """
    if not modules:
        raise ValueError("there is nothing to stack")
    structures = {tuple((name, type(part)) for name, part in module.named_modules()) for module in modules}
    if len(structures) > 1:
        raise ValueError("only nets of one structure can be stacked, and these differ in their layers")
    joint = deepcopy(modules[0])
    width: list[int] = []
    for name, part in list(joint.named_modules()):
        if isinstance(part, nn.Linear):
            alike = [module.get_submodule(name) for module in modules]
            width = [layer.out_features for layer in alike if isinstance(layer, nn.Linear)]
            _replace(joint, name, _stacked_linear(part, width, [m.get_submodule(name) for m in modules]))
        elif isinstance(part, nn.Dropout):
            dropout = StackedDropout(part.p, len(modules))
            dropout.widths = width
            _replace(joint, name, dropout)
        elif own := [*part._parameters, *(key for key, value in part._buffers.items() if value is not None)]:
            raise TypeError(
                f"{name or type(part).__name__} ({type(part).__name__}) holds {', '.join(own)} and cannot be stacked"
            )
    copy_into_stack(joint, modules)
    return joint


def _stacked_linear(layer: nn.Linear, widths: Sequence[int], alike: Sequence[nn.Module]) -> StackedLinear:
    inputs = max(part.in_features for part in alike if isinstance(part, nn.Linear))
    stacked = StackedLinear(len(alike), inputs, max(widths), bias=layer.bias is not None)
    return stacked.to(device=layer.weight.device, dtype=layer.weight.dtype)


def _replace(root: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, part)


class Member(NamedTuple):
    """A parameter of the stack, (S, ...) with padding, and the same one of each model in its own size."""

    name: str
    joint: nn.Parameter
    alone: tuple[nn.Parameter, ...]

    def of(self, model: int, values: Tensor) -> Tensor:
        """The part of `values` (S, ...), shaped like the stack's parameter, that belongs to a model: a view."""
        return unpad(values[model], self.alone[model].shape)


def members(joint: nn.Module, modules: Sequence[nn.Module]) -> Iterator[Member]:
    """The parameters of a stack with those of the modules that it consists of."""
    named = [dict(module.named_parameters()) for module in modules]
    for name, parameter in joint.named_parameters():
        yield Member(name, parameter, tuple(parameters[name] for parameters in named))


def unpad(values: Tensor, shape: Sequence[int]) -> Tensor:
    """The first corner of that shape: a view."""
    return values[tuple(slice(size) for size in shape)]


@torch.no_grad()
def copy_into_stack(joint: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Copy the modules' weights into their stack; padding becomes zero."""
    for member in members(joint, modules):
        member.joint.zero_()
        for number, parameter in enumerate(member.alone):
            member.of(number, member.joint).copy_(parameter)


@torch.no_grad()
def copy_from_stack(joint: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Copy the stack's weights back into the modules."""
    for member in members(joint, modules):
        for number, parameter in enumerate(member.alone):
            parameter.copy_(member.of(number, member.joint))
