"""The parts of torch that ask for a device in Python, answered for the pretended one."""

# What torch's stubs do not say of its own parts.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIncompatibleVariableOverride=false

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils._foreach_utils
from torch.optim import optimizer as torch_optimizer

from tests.device import guard, streams
from tests.device.pretended import Device, Mode, PretendedTensor, use
from tests.device.record import WAIT, Record


class Generator(torch._C.Generator):
    """A generator that says it is on the pretended device; its numbers are the CPU's."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        if torch.device(device).type == Device.kind:
            Device.generators.add(made._cdata)
        else:
            Device.generators.discard(made._cdata)  # of one that is gone
        return made

    @property
    def device(self) -> torch.device:
        return Device.device if self._cdata in Device.generators else torch.device("cpu")


def install(kind: str, library: Path, record: Record) -> None:
    """Pretend one device of `kind`, cuda or mps, in this process, for good."""
    guard.load(library, kind)
    use(kind, record)
    (_answer_as_cuda if kind == "cuda" else _answer_as_mps)()
    torch.Generator = Generator  # type: ignore[misc]
    for name in ("tensor", "as_tensor", "asarray"):
        setattr(torch, name, _on_host_first(getattr(torch, name)))
    # Tensors made in inference mode take no attributes of a subclass; without gradients the operators are the same.
    torch.inference_mode = _no_grad  # type: ignore[misc,assignment]
    torch.Tensor.pin_memory = _pin_memory  # type: ignore[method-assign,assignment]
    torch.Tensor.is_pinned = lambda self, *_: getattr(self, "pretends_pinned", False)  # type: ignore[method-assign]
    _let_optimizers_take_it()
    _follow_threads()


def _answer_as_cuda() -> None:
    cuda: Any = torch.cuda
    nothing = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Any] = {
        "_lazy_init": None,
        "is_available": True,
        "is_initialized": False,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "get_device_name": "pretended GPU",
        "get_device_capability": (9, 0),
        "is_bf16_supported": True,
        "manual_seed": None,
        "manual_seed_all": None,
        "get_rng_state_all": [nothing],
        "set_rng_state_all": None,
        "get_rng_state": nothing,
        "set_rng_state": None,
        "empty_cache": None,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "mem_get_info": (130 << 30, 139 << 30),
    }
    for name, answer in answers.items():
        setattr(cuda, name, _always(answer))
    for name, part in streams.patches(Device.order, Device.record).items():
        setattr(cuda, name, part)


def _answer_as_mps() -> None:
    torch.backends.mps.is_available = _always(True)
    torch.backends.mps.is_built = _always(True)
    mps: Any = torch.mps
    for name in ("manual_seed", "empty_cache", "set_rng_state"):
        setattr(mps, name, _always(None))
    mps.get_rng_state = _always(torch.zeros(16, dtype=torch.uint8))
    mps.synchronize = lambda: Device.record.note(WAIT, "torch.mps.synchronize")


def _always(answer: Any) -> Callable[..., Any]:
    return lambda *_, **__: answer


def _no_grad(mode: Any = True) -> Any:
    return torch.no_grad()(mode) if callable(mode) else torch.no_grad()


def _pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    if isinstance(tensor, PretendedTensor):
        raise RuntimeError("only tensors of the host can be pinned")
    pinned = tensor.clone()
    pinned.pretends_pinned = True  # type: ignore[attr-defined]
    return pinned


def _on_host_first(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return `make`, which knows no subclass, so that it builds on the host and copies: what it does on a real device as well."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        if device is None:
            return make(data, *args, **kwargs)
        if torch.device(device).type != Device.kind:
            return make(data, *args, device=device, **kwargs)
        return data if isinstance(data, PretendedTensor) else make(data, *args, **kwargs).to(Device.device)

    return made


def _let_optimizers_take_it() -> None:
    foreach = torch.utils._foreach_utils
    for name in dir(foreach):
        known = getattr(foreach, name)
        if isinstance(known, list) and torch.Tensor in known:
            known.append(PretendedTensor)
    torch_optimizer._foreach_supported_types.append(PretendedTensor)


def _follow_threads() -> None:
    """Keep the backward pass in the calling thread, and send operators of other threads through the mode."""
    torch.autograd.set_multithreading_enabled(False)
    original = threading.Thread.run

    def run(self: threading.Thread) -> None:
        torch.autograd.set_multithreading_enabled(False)
        with Mode():
            original(self)

    threading.Thread.run = run  # type: ignore[method-assign]
