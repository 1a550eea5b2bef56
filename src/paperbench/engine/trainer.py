"""The training loop: explicit, resumable at any step, and on a GPU free of reads back to the host between two log points."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine.cast_weights import CastWeights
from paperbench.engine.clock import Clock, SaveTimer
from paperbench.engine.finite import DeferredCheck, ImmediateCheck, NotFinite, not_finite_error
from paperbench.engine.optim import build_optimizer, lr_factor
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.prefetch import Prefetcher, depth_for
from paperbench.engine.run import Run
from paperbench.engine.seeding import GLOBAL, STEP, generator, random_state, restore_random_state, seed_step
from paperbench.errors import CheckpointError, Stopped

STATE_VERSION = 1
_STATUS_EVERY_SECONDS = 2.0


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the losses in float32. One alone is its own sum: a stack of one would cost four kernels."""
    parts = [loss.float() for loss in losses.values()]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


class Interrupt(NamedTuple):
    """A demand from outside the steps, on which the ranks agree: a signal asks for a stop, the clock for a save."""

    stop: bool = False
    save: bool = False


def build_trainer(
    run: Run,
    module: nn.Module,
    *,
    optim: OptimConfig,
    loop: LoopConfig,
    order: EpochOrder | int,
    fetch: Callable[[BatchKey], Any],
    groups: Iterable[Mapping[str, Any]] | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_at: Collection[int] = (),
    watch: str | None = None,
    watch_mode: Literal["max", "min"] = "max",
    cast_together: bool = False,
) -> Trainer:
    """Return the `Trainer` of `module`, on the run's device, for the settings of a configuration.

    order: an `EpochOrder`, or the number of training samples, whose order follows from the run's seed. groups: of parameters,
    as `optim.build_optimizer` takes them; by default all of the module in one group. The rest goes to `Trainer` as it is.
    """
    if isinstance(order, int):
        order = EpochOrder(order, loop.batch_size, run.seed, run.ranks.rank, run.ranks.world)
    return Trainer(
        run=run,
        module=module,
        optimizer=build_optimizer(optim, [{"params": module.parameters()}] if groups is None else list(groups)),
        lr_factor=lr_factor(optim, loop.steps),
        order=order,
        fetch=fetch,
        steps=loop.steps,
        clip_norm=loop.clip_norm,
        log_every=loop.log_every,
        checkpoint_every=loop.checkpoint_every,
        checkpoint_seconds=loop.checkpoint_seconds,
        evaluate_every=loop.evaluate_every,
        evaluate_at=evaluate_at,
        prefetch=loop.prefetch,
        evaluate=evaluate,
        cast_together=cast_together,
        watch=watch,
        watch_mode=watch_mode,
    )


class Trainer:
    """Trains `module` for `steps` optimizer steps and leaves it with the final weights.

    `module(batch, generator)` returns a dict of scalar losses; their sum is minimised. `batch` is what `fetch` returns for this
    rank's `BatchKey`, called in a background thread, and `generator` is a stream on the run's device that belongs to
    (seed, step, rank). Randomness drawn from it, or from torch's global generators in the module, is a function of the step
    alone; `fetch` must draw from (seed, epoch, index) alone. `module` is on `run.device`; every group of `optimizer` has
    `base_lr` (`optim.build_optimizer`), multiplied by `lr_factor(step)`.

    `evaluate()` is called on every rank, with `module` in evaluation mode, every `evaluate_every` steps (0: never), after
    those that `evaluate_at` names, and after the last one. Of its values, that called `watch` decides which checkpoint is the
    best.

    `cast_together`: no layer of `module` is called where autocast is off, so that a GPU may cast all weights at once.

    With several ranks gradients are averaged, `fetch` returns the rank's share, and rank 0's buffers count.

    A task calls `fit` alone. Between steps everything goes through `restore`, `after_step` and `finish`, which
    `stacked_trainer` calls too, for models that take their steps together.
    """

    def __init__(
        self,
        *,
        run: Run,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_factor: Callable[[int], float],
        order: EpochOrder,
        fetch: Callable[[BatchKey], Any],
        steps: int,
        clip_norm: float = 0.0,
        log_every: int = 20,
        checkpoint_every: int = 200,
        checkpoint_seconds: float = LoopConfig.checkpoint_seconds,
        evaluate_every: int = 0,
        evaluate_at: Collection[int] = (),
        prefetch: int | None = None,
        evaluate: Callable[[], dict[str, float]] | None = None,
        watch: str | None = None,
        watch_mode: Literal["max", "min"] = "max",
        cast_together: bool = False,
    ) -> None:
        self.run = run
        self.module = module
        self.optimizer = optimizer
        self.lr_factor = lr_factor
        self.order = order
        self.fetch = fetch
        self.steps = steps
        self.clip_norm = clip_norm
        self.log_every = log_every
        self.checkpoint_every = checkpoint_every
        self.evaluate_every = evaluate_every
        self.evaluate_at = frozenset(evaluate_at)
        self.prefetch = depth_for(run.device, prefetch)
        self.evaluate = evaluate
        self.watch = watch
        self.watch_mode = watch_mode

        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # Fused kernels can skip an update by themselves; elsewhere the host has to look before it steps.
        self._deferred = (
            DeferredCheck(optimizer, run.device, run.ranks)
            if run.device.type == "cuda" and optimizer.defaults.get("fused")
            else None
        )
        self._immediate = ImmediateCheck()
        self._model: nn.Module = module
        self._cast = CastWeights(module) if cast_together else None
        self._best: float | None = None
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        """Sum of each loss, and of the norm of the gradient, since the last log point. It is part of a checkpoint: a resumed run
        logs what the uninterrupted one would."""
        self._summed = 0
        self._logged: dict[str, float] = {}
        self._evaluation_pending = False
        """True if the run was stopped where an evaluation was due: a stop does not wait for it, the resumed run makes up for it."""
        self.clock = Clock(run.device)
        self.save_timer = SaveTimer(checkpoint_seconds)
        """Rank 0's says when; the other ranks have theirs for nothing."""
        self._status_written = 0.0

    # --- the loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> dict[str, float]:
        """Train to the last step and return the last losses, `train/samples_per_second` and the last evaluation.

        Starts from the run's last checkpoint where there is one. Raises `Stopped` after saving when asked to stop,
        `TrainingError` before a step that is not finite, and `CheckpointError` when no checkpoint can be used.
        """
        run = self.run
        start = self.restore()
        self._model = self._distributed()
        self._model.train()
        if run.ranks.any(bool(run.stop)):
            self.save_and_stop(start)
        self.begin(start)
        with Prefetcher(
            lambda step: self.fetch(self.order.batch(step)), start, self.steps, depth=self.prefetch, device=run.device
        ) as batches:
            self.clock.start()
            for step, batch in enumerate(batches, start):
                interrupt = self._step(step, batch)
                del batch
                if step == start:
                    self.clock.start()  # the first step builds kernels and caches: its time is not the speed
                else:
                    self.clock.count(self.order.batch_size)
                if self.is_due(step + 1, interrupt):
                    self.after_step(step + 1, interrupt)
        return self.finish()

    def begin(self, start: int) -> None:
        """Prepare the first step of a session; run the evaluation that a stop left pending. Raises `Stopped` where no step is to be
        taken."""
        self.run.reporter.progress("train", start, self.steps, self._shown(start))
        self.save_timer.start()
        if self._evaluation_pending:
            self._evaluate_and_save(start)
        self._stop_at_last_step(start)

    def _step(self, step: int, batch: Any) -> Interrupt:
        """Take one optimizer step; return what was asked for meanwhile, on any rank."""
        run = self.run
        factor = self.lr_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        seed_step(
            run.device, run.seed, GLOBAL, step, run.ranks.rank
        )  # dropout and the like draw from the global generators
        stream = generator(run.device, run.seed, STEP, step, run.ranks.rank)
        with run.autocast(), self._weights_cast():
            losses: dict[str, Tensor] = self._model(batch, stream)
        _total(losses).backward()
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        values = torch.stack([*(loss.detach().float() for loss in losses.values()), norm.detach().float()])
        if self._deferred is None:
            bad, *asked = run.ranks.any_of((not self._immediate.allows(losses, norm), *self._interrupt()))
            if bad:
                found = NotFinite(step, {name: float(loss.detach()) for name, loss in losses.items()}, float(norm))
                raise not_finite_error(found, self.order, run.ranks)
        else:
            self._deferred.watch(step, tuple(losses), values)
            asked = run.ranks.any_of(self._interrupt())
        if self.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        self.optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None  # `zero_grad` by itself is a step's hundredth in a small net
        self.add_sums(tuple(losses), values, steps=1)
        return Interrupt(*asked)

    def _weights_cast(self) -> AbstractContextManager[None]:
        """Cast the weights for autocast, where launches are what a step waits for.

        Not with several ranks: DistributedDataParallel sends each gradient as soon as it is there, which this would hold up.
        """
        run = self.run
        if self._cast is None or run.device.type != "cuda" or run.precision != "bfloat16" or run.ranks.world > 1:
            return nullcontext()
        return self._cast.replaced(torch.bfloat16)

    def _interrupt(self) -> Interrupt:
        """What this rank has to say. Each has a clock of its own: rank 0's alone counts."""
        return Interrupt(bool(self.run.stop), self.run.ranks.is_main and self.save_timer.is_due())

    def is_due(self, done: int, interrupt: Interrupt) -> bool:
        """Return True if anything happens after step `done`."""
        return done % self.log_every == 0 or self.saves_at(done, interrupt)

    def saves_at(self, done: int, interrupt: Interrupt) -> bool:
        """Return True if the weights after step `done` are saved, evaluated, or both."""
        due = any(interrupt) or self._is_last_step(done)
        return due or done == self.steps or done % self.checkpoint_every == 0 or self._evaluates_at(done)

    def after_step(self, done: int, interrupt: Interrupt) -> None:
        """Log, evaluate and save, each where it is due after step `done`.

        Raises `Stopped`, after saving, if asked to stop, or after the last step that was asked for.
        """
        last = done == self.steps
        evaluating = self._evaluates_at(done) and not last
        with self.clock.paused():
            self._raise_if_not_finite()
            if last or done % self.log_every == 0:
                self._log(done)
            if interrupt.stop:
                self._evaluation_pending = evaluating
                self.save_and_stop(done)
            if evaluating:
                self._evaluate_and_save(done)
            elif self.saves_at(done, interrupt):
                self._save(done)
            self._stop_at_last_step(done)

    def _is_last_step(self, done: int) -> bool:
        return 0 < self.run.stop.last_step <= done < self.steps

    def _stop_at_last_step(self, done: int) -> None:
        if self._is_last_step(done):
            raise self._stopped(done)

    def _evaluate_and_save(self, done: int) -> None:
        self._evaluation_pending = False
        _, best = self._evaluate(done)
        self._save(done, best=best)

    def _evaluates_at(self, done: int) -> bool:
        if self.evaluate is None:
            return False
        regular = self.evaluate_every > 0 and done % self.evaluate_every == 0
        return regular or done == self.steps or done in self.evaluate_at

    def finish(self) -> dict[str, float]:
        """Evaluate the final weights and return what `fit` does. They are saved already: a kill costs no more than the
        evaluation itself."""
        self._share_buffers()
        values: dict[str, float] = {}
        if self._evaluates_at(self.steps):
            values, best = self._evaluate(self.steps)
            if best:
                self._save(self.steps, best=True)
        return {**self._logged, **self.clock.metrics(), **values}

    def save_and_stop(self, done: int) -> None:
        """Save and raise `Stopped`."""
        self._save(done)
        raise self._stopped(done)

    def _stopped(self, done: int) -> Stopped:
        return self.run.stop_error(f"at step {done} of {self.steps}, saved")

    def _raise_if_not_finite(self) -> None:
        if self._deferred is not None:
            found = self._deferred.first_bad()
            if found is not None:
                raise not_finite_error(found, self.order, self.run.ranks)

    # --- several ranks ------------------------------------------------------------------------------------------------

    def _distributed(self) -> nn.Module:
        if self.run.ranks.world == 1:
            return self.module
        if self.run.device.type == "cuda":
            return DistributedDataParallel(self.module)
        # DDP regroups gradients after the first step unless it may meet unused parameters. Regrouped sums round
        # differently, and a resumed run would differ from an uninterrupted one.
        return DistributedDataParallel(self.module, find_unused_parameters=True)

    def _share_buffers(self) -> None:
        """Copy rank 0's buffers to every rank, as the next training step would: running means differ after a step."""
        self.run.ranks.broadcast_(list(self.module.buffers()))

    # --- numbers ------------------------------------------------------------------------------------------------------

    def add_sums(self, names: tuple[str, ...], sums: Tensor, *, steps: int) -> None:
        """Add the sums over some steps of each named loss and, last, of the norm of the gradient: (names + 1,)."""
        if self._sums is None:
            self._sums, self._names = torch.zeros_like(sums), names
        if names != self._names:
            raise ValueError(f"the module returned the losses {names}, and {self._names} in an earlier step")
        self._sums += sums
        self._summed += steps

    def _log(self, done: int) -> None:
        """Write the mean over the steps since the last log point, and over the ranks."""
        if self._sums is None or self._summed == 0:
            return
        *means, norm = (self.run.ranks.mean_(self._sums.clone()) / self._summed).tolist()
        self._sums.zero_()
        self._summed = 0
        losses = dict(zip(self._names, means, strict=True))
        self._logged = {"train/loss": sum(means), **{f"train/{name}": value for name, value in losses.items()}}
        self.run.log.write(
            done,
            {
                **self._logged,
                "train/lr": self.optimizer.param_groups[0]["lr"],
                "train/grad_norm": norm,
                **self.clock.metrics(),
            },
        )
        self.run.reporter.progress("train", done, self.steps, self._shown(done))
        if time.monotonic() - self._status_written > _STATUS_EVERY_SECONDS:
            self._write_status(done)

    def _shown(self, done: int) -> dict[str, float]:
        shown = {name.removeprefix("train/"): value for name, value in self._logged.items()}
        if self._logged:
            shown["lr"] = self.optimizer.param_groups[0]["lr"]
        if self.clock.rate() > 0:
            shown["samples/s"] = self.clock.rate()
        if self._best is not None:
            shown["best"] = self._best
        return shown

    def _write_status(self, done: int, **changes: Any) -> None:
        if self.run.ranks.is_main:
            self.run.directory.update_status(step=done, steps=self.steps, best=self._best, **changes)
            self._status_written = time.monotonic()

    def _evaluate(self, done: int) -> tuple[dict[str, float], bool]:
        """Return the values of an evaluation, and True if they are the best so far."""
        assert self.evaluate is not None
        self._share_buffers()
        self.module.eval()
        try:
            values = self.run.ranks.all_gather(self.evaluate())[0]
        finally:
            self.module.train()
        self.run.log.write(done, values)
        if self.watch is None:
            return values, False
        if self.watch not in values:
            raise ValueError(f"the evaluation has no {self.watch!r} to watch; it has {', '.join(values)}")
        value = values[self.watch]
        best = self._best is None or (value > self._best if self.watch_mode == "max" else value < self._best)
        if best:
            self._best = value
        return values, best

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self, done: int, *, best: bool = False) -> None:
        with self.save_timer.saving():
            sums = self.run.ranks.all_gather(None if self._sums is None else self._sums.cpu())
            self.run.ranks.on_main(lambda: self.run.checkpoints.save(self._state(done, sums), step=done, best=best))
        own = self.run.checkpoints.directory.is_relative_to(self.run.directory.checkpoints)
        self._write_status(done, **({"saved": True} if own else {}))

    def _state(self, done: int, sums: list[Tensor | None]) -> dict[str, Any]:
        return {
            "schema_version": STATE_VERSION,
            "config_hash": self.run.config_hash,
            "step": done,
            "steps": self.steps,
            "best": self._best,
            "evaluation_owed": self._evaluation_pending,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": random_state(self.run.device),
            "log": {"names": self._names, "sums": sums, "summed": self._summed, "logged": self._logged},
            "clock": self.clock.state(),
        }

    def restore(self, which: Literal["last", "previous"] = "last") -> int:
        """Continue from that checkpoint, if there is one; return the number of steps done."""
        run = self.run
        loaded = run.ranks.on_main(lambda: run.checkpoints.load(which))
        if loaded is None:
            return 0
        state, done = loaded
        self._refuse_foreign(state)
        self.module.load_state_dict(state["module"])
        kernels = [{name: group.get(name) for name in ("fused", "foreach")} for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoints in {run.checkpoints.directory} are of a version that grouped the parameters otherwise "
                f"({error}); resume with the version that env.json names, or start a new run"
            ) from error
        for group, kernel in zip(self.optimizer.param_groups, kernels, strict=True):
            group.update(kernel)  # which kernel is right depends on this machine, not on the one that saved
        restore_random_state(state["rng"], run.device)
        log = state["log"]
        self._names = tuple(log["names"])
        self._sums = self._own_sums(log["sums"])
        self._summed = int(log["summed"])
        self._logged = dict(log["logged"])
        self._best = state["best"]
        self._evaluation_pending = bool(state["evaluation_owed"])
        self.clock.load(state["clock"])
        run.reporter.message(f"resumed at step {done} of {self.steps}")
        return done

    def _own_sums(self, sums: list[Tensor | None]) -> Tensor | None:
        """Return this rank's own sums; with another number of ranks than the run was saved with, their mean."""
        known = [part for part in sums if part is not None]
        if not known:
            return None
        ranks = self.run.ranks
        own = known[ranks.rank] if len(known) == ranks.world else torch.stack(known).mean(0)
        return own.to(self.run.device)

    def _refuse_foreign(self, state: dict[str, Any]) -> None:
        path = self.run.checkpoints.directory
        if state.get("schema_version") != STATE_VERSION:
            raise CheckpointError(
                f"the checkpoints in {path} have format {state.get('schema_version')}, this version reads {STATE_VERSION}; "
                "resume with the version that env.json names, or start a new run"
            )
        if state.get("config_hash") != self.run.config_hash:
            raise CheckpointError(
                f"the checkpoints in {path} belong to another configuration ({state.get('config_hash')}, "
                f"not {self.run.config_hash}): config.yaml was changed since; undo the change, or start a new run with it"
            )
