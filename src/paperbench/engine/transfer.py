"""From the host to the device of a run, without the host waiting for the copy."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Return `values` on `device`. Where that is a GPU, the array may not change until the copy is done, which nobody waits for.

    For CUDA the values go through pinned memory: from any other, the driver copies them to a buffer of its own first, and nothing
    on the GPU runs meanwhile. Elsewhere the copy is done on return.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
