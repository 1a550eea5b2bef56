"""Stacked training of several models: one step of the stack is a step of every model.

Each model has its own `Trainer`, module and optimizer. They decide what happens between steps, exactly as they would alone: what
is logged, evaluated and saved, when, and in which form. So every run has its own complete record and checkpoints, which the
run can continue from alone, and a stack from those of runs that were trained alone. Only the steps are shared, on
stacked weights (`stacked_layers`) by one optimizer (`stacked_optim`).

Models never mix: nothing but the input may be shared, so one whose loss is no longer finite leaves the others as they are. It
fails by itself, with its last checkpoint intact, and the others train on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from paperbench.engine.finite import NotFinite, not_finite_error
from paperbench.engine.prefetch import Prefetcher
from paperbench.engine.seeding import GLOBAL, STEP, generator
from paperbench.engine.stacked_layers import StackedDropout, copy_from_stack, copy_into_stack, members
from paperbench.engine.stacked_optim import StackedOptimizer
from paperbench.engine.trainer import Interrupt, Trainer
from paperbench.errors import CheckpointError, PaperbenchError, Stopped

Result = dict[str, float] | PaperbenchError
"""The metrics that `Trainer.fit` would return, or the error that it would raise."""


class Joint(Protocol):
    """S models as one."""

    @property
    def module(self) -> nn.Module:
        """`stacked_layers.stack` of the trainers' modules, on their device."""
        ...

    def fetch(self, step: int) -> Any:
        """The batches of all models for a step: what the trainers' own `fetch` give, stacked, or one where all are the same.

        Called in a background thread where there is a GPU."""
        ...

    def losses(self, batch: Any, streams: Sequence[torch.Generator]) -> Mapping[str, Tensor]:
        """The losses of each model, (S,), by name. `streams`: for each model the generator that it would get alone."""
        ...


def fit_stacked(trainers: Sequence[Trainer], join: Callable[[Sequence[int]], Joint]) -> list[Result]:
    """Train all models and return the result of each. `join(numbers)` makes the stack of those trainers, in that order.

    The trainers are of one process each (no ranks), on one device, with equal numbers of steps; batches, rates, seeds and widths
    may differ. Runs that have checkpoints of an earlier session continue from them; where these are of different steps, models
    of one step go together. Raises `Stopped` when all have saved after being asked to stop.
    """
    results: dict[int, Result] = {}
    starts: dict[int, list[int]] = {}
    for number, start in enumerate(_common_starts(trainers)):
        if isinstance(start, PaperbenchError):
            results[number] = start
        else:
            starts.setdefault(start, []).append(number)
    # Those that are furthest behind first: a stop in the middle finds the runs closer together than they were.
    for start in sorted(starts):
        numbers = starts[start]
        stack = _Stack([trainers[number] for number in numbers], join(numbers), start)
        results.update(zip(numbers, stack.fit(), strict=True))
    return [results[number] for number in range(len(trainers))]


def _common_starts(trainers: Sequence[Trainer]) -> list[int | PaperbenchError]:
    """Restore every trainer and return the steps they have done, or why one cannot go on.

    A kill between two saves leaves some runs one checkpoint ahead. Their previous one brings them together again.
    """
    starts: list[int | PaperbenchError] = []
    for trainer in trainers:
        try:
            starts.append(trainer.restore())
        except CheckpointError as error:
            starts.append(error)
    known = [start for start in starts if isinstance(start, int)]
    for number, (trainer, start) in enumerate(zip(trainers, starts, strict=True)):
        if isinstance(start, int) and start > min(known) and trainer.run.checkpoints.step_of("previous") == min(known):
            starts[number] = trainer.restore("previous")
    return starts


class _Stack:
    """Models that are at the same step."""

    def __init__(self, trainers: Sequence[Trainer], joint: Joint, start: int) -> None:
        if len({trainer.steps for trainer in trainers}) != 1:
            raise ValueError("stacked models take equal numbers of steps")
        self.trainers = trainers
        self.joint = joint
        self.start = start
        self.steps = trainers[0].steps
        self.device = trainers[0].run.device
        self.modules = [trainer.module for trainer in trainers]
        copy_into_stack(joint.module, self.modules)
        self.parameters = list(members(joint.module, self.modules))
        self.optimizer = StackedOptimizer(joint.module, self.modules, [trainer.optimizer for trainer in trainers])
        self.dropouts = [part for part in joint.module.modules() if isinstance(part, StackedDropout)]
        limits = [trainer.clip_norm or math.inf for trainer in trainers]
        self.clip_norms = torch.tensor(limits, device=self.device) if min(limits) < math.inf else None
        self.failed: dict[int, PaperbenchError] = {}
        self.sums = _Sums(len(trainers), self.device)

    def fit(self) -> list[Result]:
        self.joint.module.train()
        if self._asked_to_stop():
            self._for_all(lambda trainer: trainer.save_and_stop(self.start))
        self._for_all(lambda trainer: trainer.begin(self.start))
        for trainer in self.trainers:
            trainer.clock.start()
        depth = self.trainers[0].prefetch
        with Prefetcher(self.joint.fetch, self.start, self.steps, depth=depth, device=self.device) as batches:
            for step, batch in enumerate(batches, self.start):
                if not self._alive():
                    break
                self._step(step, batch)
                del batch
                for trainer in self.trainers:
                    if step == self.start:
                        trainer.clock.start()  # as in `Trainer.fit`: the time of the first step is not the speed
                    else:
                        trainer.clock.count(trainer.order.batch_size)
                self._after_step(step + 1)
        return [self.failed.get(number) or self._finished(number) for number in range(len(self.trainers))]

    def _step(self, step: int, batch: Any) -> None:
        """Take one optimizer step of every model, as `Trainer._step` does, with an axis for the models."""
        for trainer in self.trainers:
            factor = trainer.lr_factor(step)
            for group in trainer.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        streams = [generator(self.device, trainer.run.seed, STEP, step, 0) for trainer in self.trainers]
        for number, dropout in enumerate(self.dropouts):
            # One stream for all of a model's dropout layers, as alone: the later ones draw on where the first left off.
            dropout.use(self.dropouts[0].streams if number else self._global_streams(step))
        with self.trainers[0].run.autocast():
            losses = self.joint.losses(batch, streams)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        norms = self._gradient_norms()
        self.sums.add(step, losses, norms)
        if self.device.type == "cpu":
            self._fail_not_finite()  # reading costs nothing here, and no log line is in vain
        self._clip(norms)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _global_streams(self, step: int) -> list[torch.Generator]:
        """Generators that draw what torch's global one would after `seeding.seed_step`."""
        return [generator(self.device, trainer.run.seed, GLOBAL, step, 0) for trainer in self.trainers]

    def _gradient_norms(self) -> Tensor:
        """Norm of the gradient of each model, (S,)."""
        gradients = [member.joint.grad for member in self.parameters if member.joint.grad is not None]
        squares = [torch.linalg.vector_norm(gradient.flatten(1), dim=1).square() for gradient in gradients]
        return torch.stack(squares).sum(0).sqrt()

    def _clip(self, norms: Tensor) -> None:
        if self.clip_norms is None:
            return
        factors = (self.clip_norms / (norms + 1e-6)).clamp(max=1.0)  # as torch's own clipping
        for member in self.parameters:
            gradient = member.joint.grad
            if gradient is not None:
                gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))

    # --- between steps ------------------------------------------------------------------------------------------------

    def _after_step(self, done: int) -> None:
        interrupt = self._interrupt()
        if not any(self.trainers[number].is_due(done, interrupt) for number in self._alive()):
            return
        with ExitStack() as paused:
            for trainer in self.trainers:  # all clocks stand still while any model is looked at
                paused.enter_context(trainer.clock.paused())
            self._fail_not_finite()
            self._distribute_sums()
            if any(self.trainers[number].saves_at(done, interrupt) for number in self._alive()):
                copy_from_stack(self.joint.module, self.modules)
                self.optimizer.store()
            self._for_all(lambda trainer: trainer.is_due(done, interrupt) and trainer.after_step(done, interrupt))

    def _guarded(self, number: int, act: Callable[[Trainer], Any]) -> Any:
        """Call `act`; an error of one model, such as a full disk, is that model's own failure."""
        try:
            return act(self.trainers[number])
        except Stopped:
            raise
        except PaperbenchError as error:
            self._fail(number, error)
            return None

    def _finished(self, number: int) -> Result:
        values = self._guarded(number, lambda trainer: trainer.finish())
        return self.failed[number] if values is None else values

    def _for_all(self, act: Callable[[Trainer], Any]) -> None:
        """Do `act`, which may raise `Stopped`, for every model; raise that of the last one for all."""
        stopped: Stopped | None = None
        for number in self._alive():
            try:
                self._guarded(number, act)
            except Stopped as error:
                stopped = error
        if stopped is not None:
            raise stopped

    def _interrupt(self) -> Interrupt:
        """What any model is asked for is asked of all: they are saved at one step, so that a killed stack goes on as one."""
        return Interrupt(
            self._asked_to_stop(), any(self.trainers[number].save_timer.is_due() for number in self._alive())
        )

    def _asked_to_stop(self) -> bool:
        return any(bool(trainer.run.stop) for trainer in self.trainers)

    def _distribute_sums(self) -> None:
        names, sums, steps = self.sums.drain()
        if steps:
            for number in self._alive():
                self.trainers[number].add_sums(names, sums[:, number], steps=steps)

    def _fail_not_finite(self) -> None:
        for number, found in self.sums.not_finite().items():
            if number not in self.failed:
                trainer = self.trainers[number]
                self._fail(number, not_finite_error(found, trainer.order, trainer.run.ranks))

    def _fail(self, number: int, error: PaperbenchError) -> None:
        self.failed[number] = error
        self.trainers[number].run.reporter.message(str(error))

    def _alive(self) -> list[int]:
        return [number for number in range(len(self.trainers)) if number not in self.failed]


class _Sums:
    """Losses and norms of the gradient, summed over steps for each model, and the first step of each that was not finite.

    Everything stays on the device until it is read.
    """

    def __init__(self, models: int, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._steps = 0
        self._first = torch.full((models,), -1, dtype=torch.int64, device=device)
        self._values: Tensor | None = None

    def add(self, step: int, losses: Mapping[str, Tensor], norms: Tensor) -> None:
        values = torch.stack([*(loss.detach().float() for loss in losses.values()), norms.detach()])
        if self._sums is None or self._values is None:
            self._names = tuple(losses)
            self._sums, self._values = torch.zeros_like(values), torch.zeros_like(values)
        self._sums += values
        self._steps += 1
        new = ~torch.isfinite(values).all(0) & (self._first < 0)
        self._first.masked_fill_(new, step)
        self._values.copy_(torch.where(new, values, self._values))

    def drain(self) -> tuple[tuple[str, ...], Tensor, int]:
        """Return names, sums (names + 1, S) and the number of steps since the last call."""
        if self._sums is None:
            return (), torch.zeros(0), 0
        sums, steps = self._sums.clone(), self._steps
        self._sums.zero_()
        self._steps = 0
        return self._names, sums, steps

    def not_finite(self) -> dict[int, NotFinite]:
        """Return the first step that was not finite of each model that had one. Waits for the device."""
        firsts = self._first.tolist()
        if self._values is None or max(firsts) < 0:
            return {}
        *losses, norms = self._values.tolist()
        return {
            number: NotFinite(step, {n: v[number] for n, v in zip(self._names, losses, strict=True)}, norms[number])
            for number, step in enumerate(firsts)
            if step >= 0
        }
