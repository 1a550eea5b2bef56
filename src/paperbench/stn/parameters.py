"""How many weights a net has, and the width that gives a wanted number.

The paper says that its nets have about the same number of parameters, and gives widths with which they have not (28x28: 208,586 for
CNN with 64 filters, 269,322 for FCN with 256 units). By default the stated widths hold; this solves for the number instead.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from paperbench.errors import ConfigError

WIDEST = 8192


def count(module: nn.Module) -> int:
    """Trainable numbers of `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def nearest_width(build: Callable[[int], nn.Module], target: int, *, what: str) -> int:
    """The width at which `build(width)` has the number of weights nearest to `target`; the number must grow with the width.

    Raises ConfigError, which opens with `what`, when width 1 has more than twice as many already or `WIDEST` too few.
    """
    least = count(build(1))
    if least > 2 * target:
        raise ConfigError(f"{what}: the narrowest such net has {least:,} weights already")
    low, high = 1, 2
    while count(build(high)) < target:
        low, high = high, 2 * high
        if high > WIDEST:
            raise ConfigError(f"{what}: a net of width {WIDEST} has only {count(build(WIDEST)):,} weights")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(build(middle)) < target else (low, middle)
    return min((low, high), key=lambda width: abs(count(build(width)) - target))
