"""Task `vae-eval`: measure a trained model again, with other estimators or more samples."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.config.difference import ABSENT, difference
from paperbench.config.validate import dump, load_file
from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.vae import data, drawing
from paperbench.vae.config import VaeEval
from paperbench.vae.evaluation import Evaluator
from paperbench.vae.predict import predict, run_directory
from paperbench.vae.task import check, describe_model
from paperbench.vae.training import load_data, load_model, load_objective

__all__ = ["load_model", "plan", "predict", "run"]


def plan(config: VaeEval) -> Mapping[str, str]:
    """Describe data and model. Raises ConfigError for another model, or other pixels, than the run's."""
    check(config)
    _check_against_run(config)
    return {
        "data": data.describe(config.data, config.binarisation),
        "model": describe_model(config),
        "checkpoint": config.checkpoint,
    }


def _check_against_run(config: VaeEval) -> None:
    file = run_directory(config.checkpoint) / "config.yaml"
    if not file.is_file():
        return
    _, trained, _ = load_file(file)
    mistakes = []
    if trained.binarisation != config.binarisation:
        mistakes.append(
            f"binarisation={config.binarisation}: the run was trained with binarisation={trained.binarisation} ({file}), and "
            "numbers of the two cannot be compared; train another model for it"
        )
    mistakes += [
        f"model.{key}={now}: the run was trained with model.{key}={had} ({file}); an evaluation takes the model as it is"
        for key, had, now in difference(dump(trained.model), dump(config.model))
        if now is not ABSENT
    ]
    if mistakes:
        raise ConfigError(*mistakes)


def run(config: VaeEval, run: Run) -> dict[str, float]:
    """Measure the model and draw its figures; see `engine.task.Task`."""
    train, test = load_data(config, run.device)
    objective, step = load_objective(
        config, config.checkpoint, size=test.size, device=run.device, reporter=run.reporter
    )
    run.reporter.message(f"weights of step {step} from {config.checkpoint}")
    evaluator = Evaluator(config, objective, train, test, run)
    metrics = {**evaluator(), **evaluator.likelihood()}
    if run.ranks.is_main and config.evaluation.pictures:
        run.draw(drawing.draw_figures, objective, test, run.directory.figures, seed=config.seed)
    return metrics
