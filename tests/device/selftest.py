"""Mistakes that the pretended device must catch, and uses that it must let pass.

    python -m tests.device.selftest KIND LIBRARY

prints, as JSON, what became of each: the message of the error, or null; and what the record holds afterwards.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from paperbench.engine.ranks import as_bytes
from tests.device.patches import install
from tests.device.pretended import Mode
from tests.device.record import UNORDERED, Record

KIND = sys.argv[1] if len(sys.argv) > 1 else "cuda"


def mistakes(own: torch.Tensor, host: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return uses that a real device refuses, of a tensor on it and one on the host, both (4, 4)."""
    rows = torch.zeros(2, dtype=torch.long)
    cuda = {
        "a kernel for bfloat16 that torchvision lacks": lambda: torchvision.ops.roi_align(
            own[None, None].bfloat16(), torch.rand(1, 5, device=KIND).bfloat16(), 2
        )
    }
    mps = {
        "doubles made": lambda: torch.zeros(2, dtype=torch.float64, device=KIND),
        "doubles cast": lambda: own.double(),
        "doubles copied": lambda: torch.zeros(2, dtype=torch.float64).to(KIND),
        "an operator without a kernel": lambda: torch.linalg.eig(own),
    }
    return {
        "sum": lambda: own + host,
        "concatenation": lambda: torch.cat([own, host]),
        "stack": lambda: torch.stack([own, host]),
        "stack of a host scalar": lambda: torch.stack([own.sum(), torch.tensor(1.0)]),
        "numpy": lambda: own.numpy(),
        "array": lambda: np.asarray(own),
        "host indexed by device": lambda: host[rows.to(KIND)],
        "gather with indices of the host": lambda: own.gather(1, torch.zeros(4, 1, dtype=torch.long)),
        "select with indices of the host": lambda: own.index_select(0, rows),
        "values of the host put by indices": lambda: own.index_put_((rows.to(KIND),), torch.rand(2, 4)),
        "generator of the host": lambda: torch.rand(3, device=KIND, generator=torch.Generator()),
        "generator of the device": lambda: torch.rand(3, generator=torch.Generator(device=KIND)),
        "layer on the host": lambda: F.linear(own, torch.rand(3, 4)),
        "choice": lambda: torch.where(own > 0.5, own, host),
        "sorted search": lambda: torch.searchsorted(own, host),
        "grid on the host": lambda: F.grid_sample(own[None, None], torch.rand(1, 2, 2, 2), align_corners=False),
        **(cuda if KIND == "cuda" else mps),
    }


def legal(own: torch.Tensor, host: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return uses that a real device takes."""
    return {
        "product with a host scalar": lambda: own * torch.tensor(2.0),
        "copy": lambda: own.copy_(host),
        "assignment of a host tensor": lambda: own.__setitem__(0, host[0]),
        "indices of the host": lambda: own[torch.zeros(2, dtype=torch.long)],
        "mask": lambda: own[own > 0.5],
        "item": lambda: own.sum().item(),
        "list of indices": lambda: own[[0, 1]],
        "truth": lambda: bool((own > 2).any()),
        "list": lambda: own.tolist(),
        "to the host": lambda: own.cpu().numpy(),
        "pinned copy": lambda: host.pin_memory().to(KIND, non_blocking=True),
        "pageable copy": lambda: host.to(KIND, non_blocking=True),
        "sent to another rank": lambda: _arrives_on_the_host({"part": (own, 3)}),
        "gradient and step": lambda: _step(own),
    }


def streams(host: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return uses of memory by two streams, of which those named `late …` have not waited for each other."""
    cuda, copies, default = torch.cuda, torch.cuda.Stream(), torch.cuda.current_stream()

    def copied() -> torch.Tensor:
        with cuda.stream(copies):
            return host.pin_memory().to(KIND, non_blocking=True)

    def waited() -> torch.Tensor:
        made = copied()
        default.wait_stream(copies)
        return made

    def lent() -> torch.Tensor:
        made = waited()
        made.record_stream(default)
        return made

    def late_write() -> None:
        own = torch.rand(4, 4, device=KIND)
        copies.wait_stream(default)
        with cuda.stream(copies):
            own.sum()
        own.zero_()

    def late_overwrite() -> None:
        made = lent()
        made.sum()
        with cuda.stream(copies):
            made.zero_()

    def event() -> None:
        with cuda.stream(copies):
            made = host.pin_memory().to(KIND, non_blocking=True)
            ready = copies.record_event()
        default.wait_event(ready)
        made.record_stream(default)
        made.sum()

    def late_event() -> None:
        with cuda.stream(copies):
            ready = copies.record_event()
            made = host.pin_memory().to(KIND, non_blocking=True)
        default.wait_event(ready)
        made.record_stream(default)
        made.sum()

    def read_back() -> None:
        with cuda.stream(copies):
            made = host.pin_memory().to(KIND, non_blocking=True)
            made.sum().item()
        made.record_stream(default)
        made.sum()

    return {
        "late read": lambda: copied().sum(),
        "late lending": lambda: waited().sum(),
        "late write": late_write,
        "late overwrite": late_overwrite,
        "late event": late_event,
        "waited and lent": lambda: lent().sum(),
        "event": event,
        "read back by the host": read_back,
        "one stream": lambda: (torch.rand(4, device=KIND) + 1).zero_(),
    }


def _unordered(record: Record, use: Callable[[], Any]) -> int:
    def count() -> int:
        return sum(number for (_, kind, _, _), number in record.events.items() if kind == UNORDERED)

    before = count()
    use()
    return count() - before


def _step(own: torch.Tensor) -> None:
    weight = torch.nn.Parameter(own.clone())
    F.relu(own @ weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.device.type == KIND
    torch.optim.AdamW([weight], fused=True if KIND == "cuda" else None).step()


def _arrives_on_the_host(value: dict[str, Any]) -> None:
    part, number = pickle.loads(as_bytes(value))["part"]
    assert type(part) is torch.Tensor
    assert part.device.type == "cpu"
    assert number == 3


def _tried(use: Callable[[], Any]) -> str | None:
    try:
        use()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    record = Record([Path(__file__)])
    install(KIND, Path(sys.argv[2]), record)
    with Mode():
        own, host = torch.rand(4, 4, device=KIND), torch.rand(4, 4)
        with record.step():
            refused = {name: _tried(use) for name, use in mistakes(own, host).items()}
        with record.step():
            passed = {name: _tried(use) for name, use in legal(own, host).items()}
        crossed = {name: _unordered(record, use) for name, use in streams(host).items()} if KIND == "cuda" else {}
    events = [[*key, count] for key, count in record.events.items()]
    json.dump(
        {"mistakes": refused, "legal": passed, "events": events, "waits": record.step_waits[1], "crossed": crossed},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
