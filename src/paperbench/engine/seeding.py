"""Randomness as a pure function of what it is for: nothing drawn in a step depends on what was drawn before it."""

from __future__ import annotations

import hashlib
import random

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


def seed_everything(*key: int) -> None:
    """Seeds the global generators of torch (on every device), NumPy and Python from `key`."""
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
