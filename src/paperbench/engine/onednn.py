"""Matrix products of float32 on a CPU by oneDNN instead of MKL.

PyTorch takes MKL's, which on processors of other makers than Intel run at about half the speed that the same instructions reach
in oneDNN, which PyTorch carries as well and uses for bfloat16. The results differ by rounding alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@functools.cache
def is_faster() -> bool:
    """Return True if this machine's float32 products are faster by oneDNN: an x86 processor not made by Intel."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    makers = {line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("vendor_id")}
    return bool(makers) and "GenuineIntel" not in makers and _operator() is not None


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Let `F.linear`, and with it `nn.Linear`, use oneDNN where that is faster: float32 on a CPU, without gradients."""
    if device.type != "cpu" or not is_faster():
        yield
        return
    with _OneDnn():
        yield


def _operator() -> Callable[..., Tensor] | None:
    """Return the operator that compiled graphs call; None in a build of PyTorch without it."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None


class _OneDnn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not torch.is_grad_enabled():
            operator = _operator()
            arguments: dict[str, Any] = {
                "bias": None,
                **dict(zip(("input", "weight", "bias"), args, strict=False)),
                **(kwargs or {}),
            }
            x, weight, bias = arguments["input"], arguments["weight"], arguments["bias"]
            if operator is not None and _plain(x) and _plain(weight) and weight.ndim == 2 and x.numel() > 0:
                return operator(x, weight, bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.float32 and value.device.type == "cpu"
