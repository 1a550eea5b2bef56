"""Weights in autocast's type, cast together: on a GPU one launch a step for all weights, and one for all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

_CAST_BY_AUTOCAST = (nn.Linear.forward, nn.Conv2d.forward)
"""Layers that compute in autocast's type, whatever their class: those with a `forward` of their own decide for themselves."""


class _Cast(Function):
    """Cast a list of tensors. A weight that the loss does not depend on gets no gradient, as without this."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [weight.dtype for weight in weights]
        return _together(weights, [dtype] * len(weights))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [(g, dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True) if g is not None]
        cast = iter(_together([g for g, _ in there], [dtype for _, dtype in there]))
        return None, *(None if g is None else next(cast) for g in gradients)


def _together(tensors: Any, dtypes: list[torch.dtype]) -> tuple[Tensor, ...]:
    results = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    if results:
        torch._foreach_copy_(results, list(tensors))
    return tuple(results)


class CastWeights:
    """The weights of `module` that autocast would cast one by one in every step."""

    def __init__(self, module: nn.Module) -> None:
        self._owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for layer in module.modules():
            if type(layer).forward in _CAST_BY_AUTOCAST:
                for name, parameter in layer.named_parameters(recurse=False):
                    self._owners.setdefault(parameter, []).append((layer, name))

    @contextmanager
    def replaced(self, dtype: torch.dtype) -> Iterator[None]:
        """Put the weights in `dtype` in the places of the parameters for a forward pass; gradients reach the parameters.

        The result is that of autocast to the last bit, which rounds each weight in the same way.
        """
        learned = [parameter for parameter in self._owners if parameter.requires_grad]
        if not learned:
            yield
            return
        cast = _Cast.apply(dtype, *learned)
        try:
            for parameter, weight in zip(learned, cast, strict=True):
                for layer, name in self._owners[parameter]:
                    layer._parameters[name] = weight  # type: ignore[assignment] - for the length of a pass
            yield
        finally:
            for parameter in learned:
                for layer, name in self._owners[parameter]:
                    layer._parameters[name] = parameter
