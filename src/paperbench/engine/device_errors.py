"""Errors of a device (out of memory, a kernel that failed) as errors that end the run with their reason, for all tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from paperbench.errors import DeviceError, EnvironmentError_, OutOfMemoryError

_FAILED = re.compile(
    r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|CUSOLVER_STATUS|cudaError|HIP error|device-side assert", re.I
)
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED", re.I
)
_AMOUNTS = re.compile(
    r".*?tried to allocate [\d.,]+ ?\w+(?:.*?total capacity of [\d.]+ \w+ of which [\d.]+ \w+ is free)?", re.I
)
_SIZES = ("size", "side", "short_side", "long_side", "min_size", "max_size", "max_side")


def is_device_error(error: BaseException) -> bool:
    """Return True for an error that says nothing about the work at hand: the GPU has failed, or its memory is full.

    After a failed kernel every later use of the GPU by the process fails as well.
    """
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError | DeviceError | OutOfMemoryError):
        return True
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and "nccl" not in text.lower()
        and (_FAILED.search(text) is not None or ("MPS" in text and _NO_MEMORY.search(text) is not None))
    )


def raise_device_error(error: BaseException) -> None:
    """Raise `error` again if it is the device's: whoever records errors and goes on calls this first."""
    if is_device_error(error):
        raise error


def explained(
    error: BaseException, config: Mapping[str, Any] | None = None, *, stacked: int = 1
) -> EnvironmentError_ | None:
    """Return the error that tells a user of a device's failure, or of memory that ran out; None for every other error.

    config: the resolved configuration, whose keys the remedy names. stacked: the runs in this process.
    """
    if isinstance(error, EnvironmentError_):
        return None
    text = str(error)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(text) is not None
    )
    if memory:
        return OutOfMemoryError(f"out of memory: {_amounts(error)}; {_remedy(config or {}, stacked)}")
    if is_device_error(error):
        first = text.splitlines()[0] if text else type(error).__name__
        return DeviceError(
            f"the device failed: {first}; what was saved is intact and can be resumed. If it fails at the same place again, "
            "CUDA_LAUNCH_BLOCKING=1 names the operation, and device=cpu shows whether the input is to blame"
        )
    return None


def _amounts(error: BaseException) -> str:
    """Return how much was asked for, and how much there is, as far as torch says it."""
    text = " ".join(str(error).split())
    found = _AMOUNTS.match(text)
    return (found[0] if found else text[:300]) or type(error).__name__


def _remedy(config: Mapping[str, Any], stacked: int) -> str:
    keys = dict(_numbers(config))
    batches = [f"{key} (now {value})" for key, value in keys.items() if key.endswith("batch_size")]
    sizes = [
        f"{key} (now {value})"
        for key, value in keys.items()
        if key.startswith("data.") and key.rpartition(".")[2] in _SIZES
    ]
    lower = [*(batches or ["the batch size"]), *(sizes or ["the size of the images"])]
    if stacked > 1:
        lower.append(f"the {stacked} stacked runs (fewer of them, or without --stacked)")
    return f"lower {', '.join(lower[:-1])} or {lower[-1]}, or run fewer --jobs at a time"


def _numbers(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
