"""The types that a run computes in, and torch's switches for them, set for the length of a run and written to env.json.

NVIDIA's GPUs can round the factors of a product of float32 to 10 bits after the point (TF32). torch does so by default in
convolutions and not in matrix products; here both follow the configuration's `precision`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def prepare_determinism(deterministic: bool) -> None:
    """Set what cuBLAS reads when CUDA starts, and so before the first use of a GPU. A user's own setting stays."""
    if deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Have products and convolutions of float32 computed in TF32 if `precision` is `tf32`, and exactly otherwise."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    kind = "tf32" if precision == "tf32" else "ieee"
    try:
        matmul.fp32_precision = cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = kind
        yield
    finally:
        matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


@contextmanager
def numerics(device: torch.device, precision: str, *, deterministic: bool) -> Iterator[None]:
    """Set torch's switches for the length of a run in `precision`.

    deterministic: an operation that has no deterministic kernel raises RuntimeError. On a CPU it warns otherwise.
    """
    filling: Any = torch.utils.deterministic  # its one attribute appears at run time only
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, torch.get_deterministic_debug_mode(), filling.fill_uninitialized_memory
    try:
        if deterministic or device.type == "cpu":
            # On a CPU, accumulating index_put otherwise adds from several threads in whatever order they come, and two runs
            # differ. Filling memory that is about to be written anyway would only cost time.
            # (`use_deterministic_algorithms` does the same and first imports torch's compiler, which takes seconds.)
            torch.set_deterministic_debug_mode("error" if deterministic else "warn")
            filling.fill_uninitialized_memory = False
        cudnn.deterministic = deterministic
        with float32_products(precision):
            yield
    finally:
        cudnn.deterministic, mode, filling.fill_uninitialized_memory = before
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in the types of the tensors: without autocast, and products of float32 without TF32."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with torch.autocast(device.type, enabled=False):
        if before != "tf32":
            yield
            return
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before


def describe_numerics(precision: str) -> dict[str, Any]:
    """Return the switches as they stand, for env.json."""
    cudnn: Any = torch.backends.cudnn
    return {
        "precision": precision,
        "autocast": "bfloat16" if precision == "bfloat16" else None,
        "float32_products": torch.backends.cuda.matmul.fp32_precision,
        "float32_convolutions": cudnn.conv.fp32_precision,
        "deterministic": torch.get_deterministic_debug_mode() == 2,
        "cudnn_benchmark": cudnn.benchmark,
        _WORKSPACE: os.environ.get(_WORKSPACE),
    }
