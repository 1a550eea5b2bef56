"""Random numbers that belong to a sample: pure functions of (key, sample, epoch), drawn on the device for a whole batch.

A generator's stream depends on which samples are drawn together and on how many ranks share a batch. These do not: every number
is a hash of its own place, so a sample is distorted the same way wherever and whenever it comes up, on a CPU as on a GPU.

The hash is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, with Stafford's constants), in int64 arithmetic that wraps.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN: Final = _signed(0x9E3779B97F4A7C15)
_FIRST: Final = _signed(0xBF58476D1CE4E5B9)
_SECOND: Final = _signed(0x94D049BB133111EB)
_BITS: Final = 24
"""Of a number in [0, 1): what float32 holds exactly."""


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shift to the right logically; torch's own shift copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def uniform(key: int, samples: Tensor, epochs: Tensor, count: int) -> Tensor:
    """(B, count) float32 in [0, 1), in steps of 2^-24.

    key: any integer, `seeding.hashed` of seed and purpose. samples, epochs: (B,) int64 on the device of the result.
    """
    of_sample = _mixed(_mixed(samples * _GOLDEN + _signed(key & (1 << 64) - 1)) + epochs * _GOLDEN)
    draws = torch.arange(1, count + 1, device=samples.device, dtype=torch.int64) * _GOLDEN
    bits = _shifted(_mixed(of_sample[:, None] + draws), 64 - _BITS)
    return bits.to(torch.float32) * 2.0**-_BITS


def normal(uniform: Tensor) -> Tensor:
    """Independent standard normals of the shape of `uniform` (..., even), each pair from a pair (Box and Muller 1958)."""
    first, second = uniform.unflatten(-1, (2, -1)).unbind(-2)
    radius = torch.sqrt(-2.0 * torch.log1p(-first))  # 1 - u is never 0
    angle = 2.0 * math.pi * second
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
