"""The GPUs of this machine that a process may use, by the names that `CUDA_VISIBLE_DEVICES` takes."""

from __future__ import annotations

import os
from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"
_MIG = "MIG-"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return a name for each GPU that a process with this environment sees: its number, or the UUID or MIG slice it was given by.

    A child may be given what the variable names: its numbers count from the machine's first GPU, not from the first that is
    visible. CUDA shows a process the names up to the first that does not exist. Of several MIG slices it shows one alone, and so
    they are taken at their word. Starts no CUDA.
    """
    names = [name.strip() for name in environment[VISIBLE].split(",")] if VISIBLE in environment else None
    if names is not None and names[0].startswith(_MIG):
        return tuple(dict.fromkeys(name for name in names if name.startswith(_MIG)))
    count = _count()
    return tuple(map(str, range(count))) if names is None else tuple(names[:count])


def _count() -> int:
    """Return how many GPUs torch sees, asked of the driver's management library where there is one."""
    import torch

    return torch.cuda.device_count()
