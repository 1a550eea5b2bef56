"""One optimizer for a stack of models, each with a learning rate and a state of its own.

The update rules here work element by element, so one call over stacked weights is what each model's own optimizer would do.
Where models differ in a setting, such as the rate, each gets its own slice of the weights in a group of its own; the kernels are
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from paperbench.engine.stacked_layers import Member, members, unpad

ELEMENTWISE: tuple[type[Optimizer], ...] = (AdamW, Adam, Adagrad, SGD)
"""Optimizers whose update of a weight depends on that weight, its gradient and its own state alone."""


@dataclass(frozen=True)
class _Slot:
    """One entry of the optimizer: a stacked parameter as a whole (`model` None), or one model's slice."""

    member: Member
    model: int | None
    tensor: Tensor
    """Shares the stack's memory."""

    def gradient(self) -> Tensor | None:
        grad = self.member.joint.grad
        return grad if grad is None or self.model is None else grad[self.model]


class StackedOptimizer:
    """Steps a stack as the optimizers of its models would, and holds their states.

    `modules` and `optimizers` are those of the models alone; their present state is taken over. `load` and `store` copy weights and
    states in and out. Raises TypeError for an optimizer that does not work element by element or is not the same for all.
    """

    def __init__(self, joint: nn.Module, modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
        kinds = {type(optimizer) for optimizer in optimizers}
        if len(kinds) != 1 or not kinds <= set(ELEMENTWISE):
            raise TypeError(f"cannot be stacked: optimizers {', '.join(sorted(kind.__name__ for kind in kinds))}")
        self._optimizers = optimizers
        self._groups: list[tuple[int | None, int]] = []
        """For each group of the joint optimizer: the model it belongs to (None: all), and which group of that model's."""
        self._slots: list[_Slot] = []
        groups = self._group(list(members(joint, modules)))
        defaults = optimizers[0].defaults
        fused = {"fused": defaults["fused"]} if "fused" in defaults else {}
        self._joint = kinds.pop()(groups, lr=defaults["lr"], **fused)  # pyright: ignore[reportCallIssue]
        self.load()

    def _group(self, stacked: Sequence[Member]) -> list[dict[str, Any]]:
        """Return the groups of the joint optimizer: as few as the models' settings allow."""
        places = [
            {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
            for optimizer in self._optimizers
        ]
        found: dict[tuple[int | None, int], list[_Slot]] = {}
        for member in stacked:
            indices = {place.get(id(p)) for place, p in zip(places, member.alone, strict=True)}
            index = indices.pop()
            if index is None and not indices:
                continue  # a parameter that none of them trains
            if index is None or indices:
                raise ValueError(f"{member.name} stands in different groups of the models' optimizers")
            alike = len({_settings(optimizer, index) for optimizer in self._optimizers}) == 1
            for model in [None] if alike else range(len(self._optimizers)):
                tensor = member.joint if model is None else member.joint.detach()[model].requires_grad_()
                found.setdefault((model, index), []).append(_Slot(member, model, tensor))
        groups = []
        for (model, index), slots in found.items():
            settings = {k: v for k, v in self._optimizers[model or 0].param_groups[index].items() if k != "params"}
            groups.append({**settings, "params": [slot.tensor for slot in slots]})
            self._groups.append((model, index))
            self._slots.extend(slots)
        return groups

    def step(self) -> None:
        """Take one step with the stack's gradients, at the rates that the models' own optimizers hold now."""
        for (model, index), group in zip(self._groups, self._joint.param_groups, strict=True):
            group["lr"] = self._optimizers[model or 0].param_groups[index]["lr"]
        for slot in self._slots:
            if slot.model is not None:
                slot.tensor.grad = slot.gradient()
        self._joint.step()

    def zero_grad(self) -> None:
        """Clear the stack's gradients."""
        for slot in self._slots:
            slot.member.joint.grad = None
            slot.tensor.grad = None

    # --- states -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def load(self) -> None:
        """Copy the states of the models' own optimizers into the joint one."""
        for slot in self._slots:
            alone = [self._alone(slot, model) for model in self._models(slot)]
            state: dict[str, Any] = {}
            for key, first in alone[0].items():
                if not _is_like(first, slot.member.alone[slot.model or 0]):
                    state[key] = first.clone() if isinstance(first, Tensor) else first
                    continue
                value = torch.zeros_like(slot.tensor, memory_format=torch.preserve_format)
                for model, own in zip(self._models(slot), alone, strict=True):
                    _corner(slot, model, value).copy_(own[key])
                state[key] = value.detach()
            self._joint.state[slot.tensor] = state

    @torch.no_grad()
    def store(self) -> None:
        """Copy the state of the joint optimizer back into the models' own ones."""
        for slot in self._slots:
            for model in self._models(slot):
                parameter = slot.member.alone[model]
                self._optimizers[model].state[parameter] = {
                    key: _copy_of(slot, model, value) for key, value in self._joint.state[slot.tensor].items()
                }

    def _models(self, slot: _Slot) -> Sequence[int]:
        return range(len(self._optimizers)) if slot.model is None else [slot.model]

    def _alone(self, slot: _Slot, model: int) -> dict[str, Any]:
        return self._optimizers[model].state[slot.member.alone[model]]


def _settings(optimizer: Optimizer, index: int) -> str:
    """The settings of a group, without its parameters, in a form that can be compared."""
    return repr({key: value for key, value in optimizer.param_groups[index].items() if key != "params"})


def _is_like(value: Any, parameter: Tensor) -> bool:
    """Return True if a part of an optimizer's state has a value for each weight, unlike its count of steps."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0


def _corner(slot: _Slot, model: int, value: Tensor) -> Tensor:
    return unpad(value[model] if slot.model is None else value, slot.member.alone[model].shape)


def _copy_of(slot: _Slot, model: int, value: Any) -> Any:
    if isinstance(value, Tensor) and value.shape == slot.tensor.shape:
        return _corner(slot, model, value).clone(memory_format=torch.contiguous_format)
    return value.clone() if isinstance(value, Tensor) else value
