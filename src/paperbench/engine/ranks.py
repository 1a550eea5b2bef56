"""The processes of one run: the number of this one, and collective calls. With a single process every call is trivial."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from paperbench.engine.torchrun import ENV_STORE, local_rank, rank, world_size

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number among `world`. All ranks must make the same calls in the same order."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    control: Any = None
    """A gloo group for objects and flags that live on the host; None where the default group is one."""

    @property
    def is_main(self) -> bool:
        """True if this process writes files and reports."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks. Values are pickled; they come from this run's own processes.

        With several ranks, tensors in them arrive on the host: one of another rank's GPU would take memory on that GPU here too.
        """
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, as_bytes(value), group=self.control)
        return cast("list[T]", [pickle.loads(part) for part in gathered])

    def any(self, flag: bool) -> bool:
        """Return True if `flag` is true on any rank."""
        return self.any_of((flag,))[0]

    def any_of(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """`any` for several flags in one exchange, which never waits for a GPU."""
        if self.world == 1:
            return tuple(flags)
        votes = torch.tensor([int(flag) for flag in flags], dtype=torch.int32)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(vote) for vote in votes.tolist())

    def mean_(self, value: torch.Tensor) -> torch.Tensor:
        """Replace `value` by its mean over the ranks."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def max_(self, value: torch.Tensor) -> torch.Tensor:
        """Replace `value` by its largest over the ranks, on its own device."""
        if self.world > 1:
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return value

    def broadcast_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace every tensor by that of rank 0; NCCL sends contiguous ones alone, others go through a copy."""
        if self.world > 1:
            for tensor in tensors:
                sent = tensor.contiguous()
                dist.broadcast(sent, src=0)
                if sent is not tensor:
                    tensor.copy_(sent)

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and give every rank its result. An error there is raised on every rank."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.control)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


class _HostPickler(pickle.Pickler):
    """Writes tensors of a device as tensors of the host."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor) and obj.device.type != "cpu":
            return obj.detach().cpu().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


def as_bytes(value: Any) -> bytes:
    """Return `value` pickled, its tensors as tensors of the host."""
    buffer = io.BytesIO()
    _HostPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment describes: gloo on a CPU, nccl beside it on CUDA."""
    if world_size() == 1:
        yield Ranks()
        return
    meeting = _meeting()
    if device.type == "cuda":
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, **meeting)
        control = dist.new_group(backend="gloo")
    else:
        dist.init_process_group("gloo", **meeting)
        control = None
    try:
        yield Ranks(rank(), world_size(), local_rank(), control)
    finally:
        dist.destroy_process_group()


def _meeting() -> dict[str, Any]:
    """Return the arguments with which the processes find each other: a file on one machine, else what torchrun has set up."""
    file = os.environ.get(ENV_STORE)
    if file is None:
        return {}
    return {"store": dist.FileStore(file, world_size()), "rank": rank(), "world_size": world_size()}
