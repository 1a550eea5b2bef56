"""Tensors that say they are on a GPU and are computed on the CPU.

Every operator goes through `dispatch`, which refuses what a real device would refuse and records what it would wait for.
"""

# What torch's stubs do not say of its own parts.
# pyright: reportAttributeAccessIssue=false, reportAssignmentType=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.device import kernels
from tests.device.record import FLOAT64, PAGEABLE, RACE, SCALAR, UNORDERED, WAIT, Record
from tests.device.streams import Order

_INDEXING = frozenset(["index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"])


class Device:
    """The pretended device of this process."""

    kind = "cuda"
    device = torch.device("cuda", 0)
    record = Record([])
    order = Order()
    generators: ClassVar[set[int]] = set()
    """Addresses of the generators on it; dispatch hands over others of Python's objects for them."""


def use(kind: str, record: Record) -> None:
    """Pretend a device of `kind`, cuda or mps, and write into `record`."""
    Device.kind = kind
    Device.order = Order()
    Device.device = torch.device(kind, 0)
    Device.record = record


class PretendedTensor(torch.Tensor):
    """`inner` is the tensor on the CPU that holds the values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendedTensor:
        if type(inner) is not torch.Tensor:
            raise TypeError(f"a plain tensor is expected, not {type(inner).__name__}")
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=Device.device,
            requires_grad=False,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, torch.Tensor], meta: Any, size: Any, stride: Any) -> PretendedTensor:
        return PretendedTensor(parts["inner"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        with _Plain():
            own = self.inner.detach()
            if own.numel() != own.untyped_storage().nbytes() // own.element_size():
                own = own.clone(memory_format=torch.preserve_format)
        return own.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch.no_grad():
                made = self.detach().clone(memory_format=torch.preserve_format)
            made.requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                made._is_param = True
            memo[id(self)] = made
        return memo[id(self)]

    def __getitem__(self, index: Any) -> Any:
        return torch.Tensor.__getitem__(self, _index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        torch.Tensor.__setitem__(self, _index(index), value)

    def tolist(self) -> Any:
        Device.record.note(WAIT, "tolist")
        return self.inner.tolist()

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
        return (
            torch.as_tensor(data, dtype=dtype or self.dtype).to(device or Device.device).requires_grad_(requires_grad)
        )

    def record_stream(self, stream: Any) -> None:
        Device.order.lend(_memory(self), stream.number)

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"


def _memory(tensor: PretendedTensor) -> int:
    return tensor.inner.untyped_storage()._cdata


def _index(index: Any) -> Any:
    """Return the index with lists and arrays as tensors on the device, as torch makes them."""
    import numpy as np

    def one(part: Any) -> Any:
        return (
            torch.as_tensor(np.asarray(part)).to(Device.device) if isinstance(part, (list, range, np.ndarray)) else part
        )

    return tuple(map(one, index)) if isinstance(index, tuple) else one(index)


class Mode(TorchDispatchMode):
    """Sends operators without a tensor of the device, such as those that create one, through `dispatch`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class _Plain:
    """Context without any of this."""

    def __enter__(self) -> None:
        self._guard = torch._C._DisableTorchDispatch()

    def __exit__(self, *_: object) -> None:
        del self._guard


class DeviceFaultError(RuntimeError):
    """What a real device would refuse."""


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operator: check it, record it, compute it on the CPU, wrap what is on the device."""
    if kernels.is_composite(func, Device.kind):
        with Mode():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    flat, spec = pytree.tree_flatten((args, kwargs))
    call = _Call(func, args, kwargs, flat)
    on_device = call.check()
    if on_device or call.own:
        call.account(on_device)
    result = _compute(func, flat, spec, on_device, args, kwargs)
    if Device.order.several and (on_device or call.own):
        call.keep_order(result)
    return result


class _Call:
    def __init__(self, func: Any, args: Any, kwargs: dict[str, Any], flat: list[Any]) -> None:
        self.func = func
        self.name: str = func._schema.name.split("::")[1]
        self.args, self.kwargs, self.flat = args, kwargs, flat
        self.own = [part for part in flat if isinstance(part, PretendedTensor)]
        self.host = [part for part in flat if isinstance(part, torch.Tensor) and not isinstance(part, PretendedTensor)]
        self.waited = False
        device = kwargs.get("device")
        self.device = None if device is None else torch.device(device)

    def check(self) -> bool:
        """Return True if the result is on the device. Raises DeviceFaultError for what a real one refuses."""
        checks: dict[str, Callable[[], bool]] = {"_to_copy": self._to_copy, "copy_": self._copy}
        on_device = self._indexing() if self.name in _INDEXING else checks.get(self.name, self._others)()
        self._generators(on_device)
        return on_device

    def _to_copy(self) -> bool:
        source = bool(self.own)
        target = self.device.type == Device.kind if self.device is not None else source
        self._transfer(source, target, self.flat[0], bool(self.kwargs.get("non_blocking", False)))
        return target

    def _copy(self) -> bool:
        target, source = (isinstance(part, PretendedTensor) for part in self.args[:2])
        non_blocking = self.kwargs.get("non_blocking", self.args[2] if len(self.args) > 2 else False)
        self._transfer(source, target, self.args[1], bool(non_blocking))
        return target

    def _transfer(self, source: bool, target: bool, tensor: torch.Tensor, non_blocking: bool) -> None:
        if source == target:
            return
        if not non_blocking:
            self.note(WAIT)
        elif source:
            self.note(RACE)
        elif not getattr(tensor, "pretends_pinned", False):
            self.note(PAGEABLE)

    def _indexing(self) -> bool:
        on_device = isinstance(self.args[0], PretendedTensor)
        for index in self.args[1]:
            if index is None:
                continue
            if isinstance(index, PretendedTensor) and not on_device:
                self.fail("indices on the device, the indexed tensor on the host")
            if on_device and not isinstance(index, PretendedTensor):
                self.note(WAIT, "index of the host")
            if on_device and index.dtype in (torch.bool, torch.uint8):
                self.note(WAIT, "mask")
        if self.name not in ("index", "_unsafe_index") and len(self.args) > 2:
            values = self.args[2]
            if isinstance(values, PretendedTensor) != on_device and values.dim() > 0:
                self.fail("values on another device")
        return on_device

    def _others(self) -> bool:
        if self.own and self.host:
            large = [part for part in self.host if part.dim() > 0]
            scalars_pass = torch.Tag.pointwise in self.func.tags or self.name in kernels.HOST_SCALARS
            if large or not scalars_pass:
                shapes = [tuple(part.shape) for part in self.host], [tuple(part.shape) for part in self.own]
                self.fail(f"mixed devices: host {shapes[0]}, device {shapes[1]}")
            self.note(SCALAR)
        return self.device.type == Device.kind if self.device is not None else bool(self.own)

    def _generators(self, on_device: bool) -> None:
        for part in self.flat:
            if isinstance(part, torch._C.Generator) and (part._cdata in Device.generators) != on_device:
                place = "the device" if on_device else "the host"
                self.fail(f"its generator is not on {place}")

    def account(self, on_device: bool) -> None:
        """Record an operator that touches the device."""
        tags = self.func.tags
        dynamic = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        counted = self.name == "repeat_interleave" and self.kwargs.get("output_size") is None and len(self.args) < 2
        if self.name in kernels.WAITING or (dynamic and self.name not in _INDEXING) or counted:
            self.note(WAIT)
        if not kernels.has_kernel(self.func, Device.kind):
            self.fail(f"{Device.kind} has no kernel of it")
        types = {part.dtype for part in self.own}
        if on_device and (asked := self.kwargs.get("dtype")) is not None:
            types.add(asked)
        if self.name in kernels.NO_BFLOAT16 and torch.bfloat16 in types:
            self.fail("no kernel for bfloat16")
        if torch.float64 in types:
            if Device.kind == "mps":
                raise TypeError(
                    f"{self.func}: cannot convert a MPS tensor to float64, which the device lacks, at {Device.record.where()}"
                )
            self.note(FLOAT64)
        if self.name not in kernels.VIEWS and torch.Tag.inplace_view not in tags:
            Device.record.launch(self.name)

    def keep_order(self, result: Any) -> None:
        """Record a use of memory that comes too early, of an operator that has run."""
        used = {_memory(part) for part in self.own}
        made = {_memory(part) for part in pytree.tree_leaves(result) if isinstance(part, PretendedTensor)} - used
        if self.name in kernels.VIEWS:
            used = set()
        arguments = self.func._schema.arguments
        given = {**dict(zip((argument.name for argument in arguments), self.args, strict=False)), **self.kwargs}
        changed = [given.get(one.name) for one in arguments if one.alias_info is not None and one.alias_info.is_write]
        written = {_memory(part) for part in pytree.tree_leaves(changed) if isinstance(part, PretendedTensor)}
        for fault in Device.order.use(used - written, written, made):
            self.note(UNORDERED, fault)
        if self.waited:
            Device.order.host_waits()

    def note(self, kind: str, detail: str = "") -> None:
        self.waited |= kind == WAIT
        Device.record.note(kind, f"{self.func}".replace("aten.", "") + (f" ({detail})" if detail else ""))

    def fail(self, why: str) -> None:
        raise DeviceFaultError(f"{self.func}: {why}, at {Device.record.where()}")


def _compute(func: Any, flat: list[Any], spec: Any, on_device: bool, args: Any, kwargs: dict[str, Any]) -> Any:
    inner = [part.inner if isinstance(part, PretendedTensor) else part for part in flat]
    plain_args, plain_kwargs = pytree.tree_unflatten(inner, spec)
    device = plain_kwargs.get("device")
    if device is not None and torch.device(device).type == Device.kind:
        plain_kwargs = {**plain_kwargs, "device": torch.device("cpu")}
    with _Plain():
        result = kernels.run(func, plain_args, plain_kwargs)
        if torch.Tag.inplace_view in func.tags:
            func(*args, **kwargs)  # the shape of the wrapper follows
    known = {id(part): whole for whole, part in zip(flat, inner, strict=True) if isinstance(whole, torch.Tensor)}

    def wrapped(part: Any) -> Any:
        if not isinstance(part, torch.Tensor):
            return part
        if id(part) in known:
            return known[id(part)]
        return PretendedTensor(part) if on_device else part

    return pytree.tree_map(wrapped, result)
