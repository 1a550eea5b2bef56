"""Random streams as pure functions of their purpose: nothing drawn in a step depends on what was drawn before it."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch

MODEL_INIT, STEP, ORDER, GLOBAL = 1, 2, 3, 4
"""First key of the engine's own streams. A task numbers its own from 100."""


def hashed(*key: int) -> int:
    """A 63-bit hash of integers of any size; different keys give unrelated values."""
    digest = hashlib.blake2b(",".join(str(int(part)) for part in key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on `device` whose stream follows from `key` alone, for example `(seed, purpose, step, rank)`."""
    return torch.Generator(device=device).manual_seed(hashed(*key))


def on_host(stream: torch.Generator | None) -> torch.Generator | None:
    """Return `stream`, or one on the host with the same seed where it is on a device: what that draws is known without waiting."""
    if stream is None or stream.device.type == "cpu":
        return stream
    return torch.Generator().manual_seed(stream.initial_seed())


def seed_everything(*key: int) -> None:
    """Seed the global generators of torch (on every device), NumPy and Python from `key`."""
    torch.manual_seed(hashed(*key))
    _seed_others(hashed(*key))


def seed_step(device: torch.device, *key: int) -> None:
    """`seed_everything` for a loop whose device is in use already.

    `torch.manual_seed` keeps a formatted stack for every kind of device that was never used: a third of a millisecond.
    """
    value = hashed(*key)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    _seed_others(value)


def _seed_others(value: int) -> None:
    np.random.seed(value & 0xFFFFFFFF)
    random.seed(value)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators of torch, Python and NumPy, in a form that a checkpoint can hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the global generators to what `random_state` returned; those of CUDA only if there are as many devices as then."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
