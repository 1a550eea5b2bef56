"""A trained model back from a run."""

from __future__ import annotations

import torch

from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.reporter import Reporter
from paperbench.errors import CheckpointError
from paperbench.vae import build
from paperbench.vae.config import VaeTrain
from paperbench.vae.objectives import Objective


def load_objective(
    config: VaeTrain,
    checkpoint: object,
    *,
    size: tuple[int, int],
    device: torch.device,
    reporter: Reporter | None = None,
) -> tuple[Objective, int]:
    """The trained objective of `config`, for images of `size`, on `device`, and the step it is of.

    `checkpoint` is a run directory or a checkpoint file. Raises ConfigError when there is none and CheckpointError when it is
    damaged or belongs to another model.
    """
    state, step, file = load_for_evaluation(str(checkpoint), reporter, which="last")
    weights = state["module"]
    # Chains of Monte Carlo EM belong to training images: as many as the checkpoint has.
    images = len(weights["chains"]) if "chains" in weights else 1
    objective = build.objective(config, size=size, images=images)
    try:
        objective.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise CheckpointError(f"{file}: holds another model than the configuration describes: {first}") from error
    return objective.to(device).eval(), step
