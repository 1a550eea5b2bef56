"""How many steps the stages of a run take."""

from __future__ import annotations

from dataclasses import dataclass

from paperbench.distill.config import Distill


def steps_of(samples: int, batch_size: int) -> int:
    """Optimizer steps of a training."""
    return -(-samples // batch_size)


@dataclass(frozen=True)
class Plan:
    """Steps of each stage, in their order: teachers that have to be trained, the baseline, the distilled student."""

    teachers: int
    baseline: int
    distilled: int

    @classmethod
    def of(cls, config: Distill) -> Plan:
        teaching, student = config.teaching, steps_of(config.train.samples, config.train.batch_size)
        members = 0 if config.teacher else teaching.members
        return cls(
            members * steps_of(teaching.samples, teaching.batch_size), student if config.baseline.train else 0, student
        )

    @property
    def total(self) -> int:
        return self.teachers + self.baseline + self.distilled
