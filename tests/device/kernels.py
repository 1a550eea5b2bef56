"""Facts about operators that a real device would teach: which have a kernel, which wait, which launch nothing."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch

VIEWS = frozenset([
    "view", "as_strided", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select", "slice",
    "detach", "alias", "unbind", "split", "split_with_sizes", "chunk", "_unsafe_view", "_reshape_alias", "unfold",
    "diagonal", "view_as_real", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty",
    "new_empty_strided", "is_same_size", "set_", "sym_size", "narrow",
])  # fmt: skip
"""Operators that launch no kernel."""

WAITING = frozenset([
    "_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "bincount", "equal", "is_nonzero", "nms",
    "_linalg_check_errors", "histc", "linalg_svd", "_linalg_svd", "linalg_eigh", "_linalg_eigh", "linalg_lstsq",
    "linalg_eig", "histogram",
])  # fmt: skip
"""Operators that read a value back to the host."""

HOST_SCALARS = frozenset([
    "where", "masked_fill", "masked_fill_", "index_put", "index_put_", "_index_put_impl_", "copy_", "fill_", "fill",
    "lerp", "lerp_", "clamp", "clamp_", "addcmul", "addcdiv", "add_", "add", "mul", "mul_", "sub", "div",
])  # fmt: skip
"""Operators, beside the pointwise ones, that take a host tensor without dimensions."""

NO_BFLOAT16 = frozenset([
    "nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d", "_roi_align_backward",
    "_deform_conv2d_backward", "_ps_roi_align_backward",
])  # fmt: skip
"""torchvision's kernels that are not compiled for bfloat16."""

_MPS_OF_TORCHVISION = frozenset([
    "nms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
])  # fmt: skip


def _full_name(func: Any) -> str:
    schema = func._schema
    return f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name


@cache
def has_kernel(func: Any, kind: str) -> bool:
    """Return True if the device has a kernel of the operator."""
    name = _full_name(func)
    if kind == "mps":
        return _on_mps(name)
    try:
        return torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "CUDA")
    except RuntimeError:
        return True


@cache
def is_composite(func: Any, kind: str) -> bool:
    """Return True if the device gives the operator no kernel of its own, since it is made of others."""
    name = func.name()

    def has(key: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)

    own = has("CUDA") if kind == "cuda" else _listed_for_mps(_full_name(func))
    return has("CompositeImplicitAutograd") and not own and not has("CompositeExplicitAutograd")


def _on_mps(name: str) -> bool:
    namespace, _, operator = name.partition("::")
    if namespace == "torchvision":
        return operator in _MPS_OF_TORCHVISION
    if namespace != "aten":
        return True
    if _listed_for_mps(name):
        return True
    for key in ("CompositeExplicitAutograd", "CompositeImplicitAutograd", "CompositeExplicitAutogradNonFunctional"):
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, key):
            return True
    return False


def _listed_for_mps(name: str) -> bool:
    return name.removeprefix("aten::") in _mps_operators()


@cache
def _mps_operators() -> frozenset[str]:
    """Operators for which torch's own list of native functions names an MPS kernel. The list comes with torch."""
    import torchgen

    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    delegates: dict[str, str] = {}
    found: set[str] = set()
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"- func: ([\w.]+)\(", line):
            name = match[1]
        elif match := re.match(r"\s+structured_delegate: ([\w.]+)", line):
            delegates[name] = match[1]
        elif (match := re.match(r"\s+([\w, ]+): \w+", line)) and "MPS" in match[1].replace(" ", "").split(","):
            found.add(name)
    return frozenset(found | {name for name, target in delegates.items() if target in found})


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run the operator on the CPU; those that only CUDA has by what computes the same."""
    name = func._schema.name.split("::")[1]
    aten = torch.ops.aten
    if name == "cudnn_batch_norm":
        x, weight, bias, mean, variance, training, momentum, epsilon = args
        result = aten.native_batch_norm(x, weight, bias, mean, variance, training, momentum, epsilon)
        return *result, torch.empty(0, dtype=torch.uint8)
    if name == "cudnn_batch_norm_backward":
        x, gradient, weight, mean, variance, saved_mean, saved_variance, epsilon, _ = args
        return aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, saved_mean, saved_variance, True, epsilon, [True, True, True]
        )
    if name == "cudnn_grid_sampler":
        return aten.grid_sampler_2d(args[0], args[1], 0, 0, True)
    if name == "cudnn_grid_sampler_backward":
        return aten.grid_sampler_2d_backward(args[2], args[0], args[1], 0, 0, True, [True, True])
    return func(*args, **kwargs)
