"""`optim.lr=auto`: what the search measures, chooses, records, and that the run is then that of the chosen rate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.engine import metriclog
from paperbench.errors import ConfigError, Stopped, TrainingError
from paperbench.vae import rate_search, training
from paperbench.vae.task import plan, run, run_stacked, stack_key
from tests.vae.runs import DECLARED, StopAfter, configured, losses, make_run, state

SHORT = ("train.samples=200", "train.checkpoint_every=4")
SEARCH = (*SHORT, "rate_search.samples=100")
ADAM = (*SEARCH, "optim.lr=auto", "rate_search.rates=[1e-4,3e-3,1e-3]")
DIVERGES = (*SEARCH, "optim.name=sgd", "optim.momentum=0", "optim.lr=auto")
MCEM = ("estimator=mcem", "model.latent=2", "evaluation.marginal.images=6")
RATE = "train/samples_per_second"


def _without_search(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("rates/") and name != RATE}


def test_the_best_rate_is_chosen_by_the_training_set_after_the_search_alone(tmp_path: Path) -> None:
    pair = configured(*ADAM)
    metrics = run(pair[0], make_run(tmp_path / "run", *pair))
    bounds = {}
    for rate in (1e-4, 3e-3, 1e-3):
        short = configured(f"optim.lr={rate}", "train.samples=100")
        bounds[rate] = run(short[0], make_run(tmp_path / str(rate), *short))["train/bound"]
    assert {rate: metrics[f"rates/{rate}/train/bound"] for rate in bounds} == bounds
    assert metrics["rates/chosen"] == max(bounds, key=lambda rate: bounds[rate])
    records = metriclog.read(tmp_path / "run" / "metrics.jsonl")
    assert [record["rates/chosen"] for record in records if "rates/chosen" in record] == [metrics["rates/chosen"]]
    assert all(name in DECLARED for name in metrics)


def test_a_run_that_chose_is_the_run_of_the_chosen_rate_bit_for_bit(tmp_path: Path) -> None:
    pair = configured(*ADAM)
    chose = make_run(tmp_path / "auto", *pair)
    metrics = run(pair[0], chose)
    named = configured(*SHORT, f"optim.lr={metrics['rates/chosen']}")
    given = make_run(tmp_path / "given", *named)
    assert _without_search(run(named[0], given)) == _without_search(metrics)
    for name, weights in state(given)["module"].items():
        assert torch.equal(weights, state(chose)["module"][name]), name


@pytest.mark.parametrize(
    ("overrides", "experiment", "measure"),
    [(("estimator=wake-sleep",), "vae", "train/bound"), (MCEM, "vae", "train/loss"),
     (("bound.form=importance", "bound.samples=3"), "vae", "train/importance_bound"),
     ((), "autoencoder", "train/squared_error")],
    ids=["wake-sleep", "mcem", "importance-weighted", "autoencoder"],
)  # fmt: skip
def test_every_way_of_learning_has_a_measure(
    overrides: tuple[str, ...], experiment: str, measure: str, tmp_path: Path
) -> None:
    pair = configured(*ADAM, *overrides, experiment=experiment)
    metrics = run(pair[0], make_run(tmp_path, *pair))
    values = {rate: metrics[f"rates/{rate}/{measure}"] for rate in (1e-4, 3e-3, 1e-3)}
    best = max if measure.endswith("bound") else min
    assert metrics["rates/chosen"] == best(values, key=lambda rate: values[rate])
    assert len(set(values.values())) == 3
    assert all(name in DECLARED for name in metrics)


def test_a_rate_that_is_not_finite_is_not_chosen(tmp_path: Path) -> None:
    pair = configured(*DIVERGES, "rate_search.rates=[1e12,1e-4]")
    found = make_run(tmp_path / "one", *pair)
    metrics = run(pair[0], found)
    assert metrics["rates/chosen"] == 1e-4
    assert not any(name.startswith(f"rates/{1e12}/") for name in metrics)
    recorded = json.loads((found.directory.checkpoints / "rates.json").read_text())["rates"]
    assert recorded[0]["value"] is None
    none = configured(*DIVERGES, "rate_search.rates=[1e12,1e13]")
    with pytest.raises(TrainingError, match=r"no rate of rate_search.rates is finite .* 1e\+12 not finite, 1e\+13"):
        run(none[0], make_run(tmp_path / "none", *none))


@pytest.mark.parametrize("overrides", [(), MCEM], ids=["aevb", "mcem"])
@pytest.mark.parametrize("looks", [3, 8, 22])
def test_a_run_that_is_stopped_in_or_after_the_search_continues_bit_for_bit(
    overrides: tuple[str, ...], looks: int, tmp_path: Path
) -> None:
    pair = configured(*ADAM, *overrides)
    whole = make_run(tmp_path / "whole", *pair)
    expected = run(pair[0], whole)
    with pytest.raises(Stopped):
        run(pair[0], make_run(tmp_path / "part", *pair, stop=StopAfter(looks)))
    resumed = make_run(tmp_path / "part", *pair, again=True)
    found = run(pair[0], resumed)
    assert {**found, RATE: 0} == {**expected, RATE: 0}
    assert losses(resumed) == losses(whole)
    for name, weights in state(whole)["module"].items():
        assert torch.equal(weights, state(resumed)["module"][name]), name


def test_a_search_is_made_once_and_leaves_its_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = configured(*ADAM)
    first = make_run(tmp_path, *pair, stop=StopAfter(22))  # three times five steps, and some of the training
    with pytest.raises(Stopped):
        run(pair[0], first)
    assert not (first.directory.checkpoints / "rates").exists()
    monkeypatch.setattr(rate_search, "_try", lambda *_: pytest.fail("the search was made again"))
    resumed = make_run(tmp_path, *pair, again=True)
    assert run(pair[0], resumed)["rates/chosen"] == 3e-3


def test_a_kill_between_search_and_first_checkpoint_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    pair = configured(*ADAM)
    killed = make_run(tmp_path, *pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_trainer", _killed_after_the_search)
        with pytest.raises(KeyboardInterrupt):
            run(pair[0], killed)
    assert killed.directory.lost_progress() == (0, False)


def _killed_after_the_search(*arguments: Any, _real: Any = training._trainer, **named: Any) -> Any:
    if "evaluate_at" in named:  # the training itself
        raise KeyboardInterrupt
    return _real(*arguments, **named)


def test_stacked_runs_choose_each_for_themselves(tmp_path: Path) -> None:
    common = (*DIVERGES, "rate_search.rates=[1e-5,1e-3,3e-3]")
    grid = [("model.latent=3",), ("model.latent=20", "model.init_std=0.3")]
    pairs = [configured(*common, *overrides) for overrides in grid]
    alone = [run(pair[0], make_run(tmp_path / f"alone{n}", *pair)) for n, pair in enumerate(pairs)]
    configs = [config for config, _ in pairs]
    together = run_stacked(configs, [make_run(tmp_path / f"{n}", *pair) for n, pair in enumerate(pairs)])
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, dict)
        assert other["rates/chosen"] == one["rates/chosen"]
        assert _without_search(other) == pytest.approx(_without_search(one), rel=1e-4)
    assert alone[0]["rates/chosen"] != alone[1]["rates/chosen"]


def test_a_stacked_run_without_a_finite_rate_fails_by_itself(tmp_path: Path) -> None:
    pairs = [configured(*DIVERGES, f"rate_search.rates={rates}") for rates in ("[1e12]", "[1e-4]")]
    runs = [make_run(tmp_path / f"{n}", *pair) for n, pair in enumerate(pairs)]
    failed, fine = run_stacked([config for config, _ in pairs], runs)
    assert isinstance(failed, TrainingError)
    assert isinstance(fine, dict)
    assert fine["rates/chosen"] == 1e-4


def test_a_chosen_and_a_given_rate_can_be_stacked() -> None:
    assert stack_key(configured("optim.lr=auto")[0]) == stack_key(configured("optim.lr=0.01")[0])


def test_what_is_asked_of_the_search_without_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rate_search.rates=\[0.5\]: is of no use with optim.lr=0.001"):
        plan(configured("rate_search.rates=[0.5]")[0])
    with pytest.raises(ConfigError, match=r"rate_search.samples=7: is of no use"):
        plan(configured("rate_search.samples=7")[0])
    with pytest.raises(ConfigError, match="names a rate twice"):
        plan(configured("optim.lr=auto", "rate_search.rates=[0.5,0.5]")[0])
    plan(compose("vae", ["scale=paper", "optim.lr=0.02"]).config)  # the preset's own search is no contradiction
    schedule = plan(configured("optim.lr=auto")[0])["schedule"]
    assert "the best rate of 0.01, 0.02, 0.1 after 60,000 samples of each" in schedule
