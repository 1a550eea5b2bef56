"""Small constants on the device of a run, each copied there once.

`tensor.new_tensor(...)` and `torch.tensor(..., device=...)` copy from the host at every call, and wait until a GPU has the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return (n,) `values` in the type and on the device of `like`. Read-only: all callers get one tensor.

    While a graph is traced it is made anew, so that no tensor of the tracer outlives it.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return like.new_tensor(values)
    return _made(tuple(values), like.dtype, like.device)


@lru_cache(maxsize=256)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with (
        torch.inference_mode(False),
        torch.no_grad(),
    ):  # training may come after an evaluation, and saves it for gradients
        return torch.tensor(values, dtype=dtype, device=device)
