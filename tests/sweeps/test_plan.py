"""From what a person types to runs: expanded, composed, checked, named by their hash, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.config.compose import compose
from paperbench.config.validate import config_hash
from paperbench.engine.claims import prepare
from paperbench.errors import ConfigError, DataError
from paperbench.sweeps.plan import Request, compose_members, expand, jobs_of, plan, plan_overrides
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configurations with the experiment `toy`, outside the one that the test stands in."""
    toy.register(monkeypatch)
    folder = toys.conf(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def labels(requests: list[Request]) -> list[dict[str, str]]:
    return [dict(request.labels) for request in requests]


# --- expansion --------------------------------------------------------------------------------------------------------


def test_the_last_key_runs_fastest() -> None:
    requests = expand("x", ["a=1,2", "fixed=3", "b=u,v"])
    assert labels(requests) == [{"a": a, "b": b} for a in "12" for b in "uv"]
    assert requests[1].overrides == ("a=1", "fixed=3", "b=v")
    assert {request.experiment for request in requests} == {"x"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("seed=range(3)", ["0", "1", "2"]),
        ("seed=range(6,0,-2)", ["6", "4", "2"]),
        ("lr=range(0.1,0.4,0.1)", ["0.1", "0.2", "0.3"]),
        ("lr=range(1,0,-0.25)", ["1.0", "0.75", "0.5", "0.25"]),
        ("lr=choice(0.1,1e-3)", ["0.1", "0.001"]),
        ("model=sort(st-cnn,cnn)", ["cnn", "st-cnn"]),
        ("sizes=[1,2],[3]", ["[1,2]", "[3]"]),
        ("name='a,b','c d'", ["'a,b'", "'c d'"]),
        ("x=null,true", ["null", "true"]),
        ("seed=1,1,2", ["1", "2"]),
    ],
)
def test_what_an_override_stands_for(text: str, values: list[str]) -> None:
    key = text.partition("=")[0]
    requests = expand("x", [text])
    assert [request.labels[key].lower() for request in requests] == values
    assert [request.overrides[0].lower() for request in requests] == [f"{key}={value}" for value in values]


def test_a_pattern_stands_for_the_choices_of_a_group(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        file = tmp_path / "conf" / "optim" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("lr: 1")
    assert labels(expand("x", ["optim=glob(o*)"])) == [{"optim": "one"}, {"optim": "other"}]
    assert [d["optim"] for d in labels(expand("x", ["optim=glob([o*,t*],exclude=other)"]))] == ["one", "two"]


def test_an_override_with_one_value_is_left_as_it_is() -> None:
    texts = ("a=[1,2]", 'b="x,y"', "+c=3", "~d")
    assert expand("x", texts)[0].overrides == texts
    assert labels(expand("x", texts)) == [{}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr=interval(0,1)", "an interval has no steps; write range(START,STOP,STEP)"),
        ("seed=range(3,0)", "stands for no value at all"),
        ("optim=glob(nothing*)", "stands for no value at all"),
        ("seed=range(0,3,0)", "cannot be counted through"),
        ("lr=range(0.0,3,0)", "cannot be counted through"),
        ("lr=range(0.0,3,-1)", "stands for no value at all"),
        ("output.root=a,b", "changes no result, so the runs would be one and the same"),
        ("train.log_every=1,2", "changes no result"),
        ("seed=range(0,1000000000)", "10,001 runs, and a sweep takes 10,000 at most"),
        ("seed=1,2(", "cannot be read"),
    ],
)
def test_what_cannot_be_expanded(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand("x", [text])
    assert said in str(caught.value)
    assert text in str(caught.value)


def test_the_number_of_runs_has_an_end() -> None:
    with pytest.raises(ConfigError, match="1,000,000 runs"):
        expand("x", ["a=range(0,1000)", "b=range(0,1000)"])


# --- plans ------------------------------------------------------------------------------------------------------------


def test_runs_are_named_by_their_hash_and_nothing_is_made(conf: Path, tmp_path: Path) -> None:
    sweep = plan_overrides("toy", ["seed=1,2", "optim.lr=0.5"], conf_dir=conf)
    assert list((tmp_path / "here").iterdir()) == []
    expected = config_hash(compose("toy", ["seed=1", "optim.lr=0.5"], conf_dir=conf).resolved)[:12]
    first = sweep.members[0]
    assert (first.hash, first.directory) == (expected, Path("outputs/toy") / expected)
    assert dict(first.request.labels) == {"seed": "1"}
    assert first.composed.config.optim.lr == 0.5
    assert sweep.directory == Path("outputs/toy/sweeps") / sweep.id
    assert (sweep.name, sweep.kind, sweep.overrides) == ("toy", "sweep", ("seed=1,2", "optim.lr=0.5"))


def test_the_same_runs_are_the_same_sweep_however_they_are_written(conf: Path) -> None:
    ids = {
        plan_overrides("toy", texts, conf_dir=conf).id
        for texts in (["seed=0,1"], ["seed=1,0"], ["seed=range(2)"], ["seed=0,1", "train.log_every=7"])
    }
    assert len(ids) == 1
    assert plan_overrides("toy", ["seed=0,2"], conf_dir=conf).id not in ids


def test_neither_jobs_nor_output_change_a_runs_name(conf: Path) -> None:
    one = plan_overrides("toy", ["seed=1"], conf_dir=conf).members[0]
    other = plan_overrides("toy", ["seed=1", "output.root=there"], conf_dir=conf).members[0]
    assert one.hash == other.hash
    assert other.directory == Path("there/toy") / one.hash


def test_requests_of_one_configuration_are_one_run(conf: Path) -> None:
    requests = [Request(experiment="toy", overrides=("seed=3",), labels={"row": row}) for row in ("a", "b")]
    requests.append(Request(experiment="toy", overrides=("seed=4",)))
    sweep = plan(compose_members(requests, conf), directory=Path("table"))
    assert [dict(member.request.labels) for member in sweep.members] == [{"row": "a"}, {}]
    assert sweep.directory == Path("table")


def test_all_mistakes_of_all_runs_at_once_each_said_once(conf: Path, tmp_path: Path) -> None:
    texts = ["optim.lrr=1,2", "optim.lr=0.1,-1,-2", "lenght=3", "x=interval(0,1)", "scale=shrt"]
    with pytest.raises(ConfigError) as caught:
        plan_overrides("toy", texts, conf_dir=conf)
    mistakes = caught.value.mistakes
    assert len(mistakes) == 6
    for said in (
        "x=interval(0,1)",
        "optim.lrr: no such key",
        "lenght: no such key",
        "scale=shrt",
        "given -1",
        "given -2",
    ):
        assert sum(said in text for text in mistakes) == 1, said
    assert list((tmp_path / "here").iterdir()) == []


def test_what_a_task_refuses_at_a_glance_is_refused_before_anything_is_made(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def refusing(config: toy.ToyConfig) -> dict[str, str]:
        asked.append(config.seed)
        if config.length == 5:
            raise DataError("points.txt: no such file")
        return {}

    monkeypatch.setattr(toy, "plan", refusing)
    with pytest.raises(DataError, match=r"^points\.txt: no such file$"):
        plan_overrides("toy", ["length=5,6", "seed=range(10)"], conf_dir=conf)
    assert len(asked) == 2, "once for what differs in the seed alone"
    assert list((tmp_path / "here").iterdir()) == []


def test_a_folder_that_holds_another_run_is_refused(conf: Path) -> None:
    member = plan_overrides("toy", ["seed=1"], conf_dir=conf).members[0]
    prepare(member.directory, compose("toy", ["seed=2"], conf_dir=conf).resolved)
    with pytest.raises(ConfigError, match="holds a run of another configuration than its name says"):
        plan_overrides("toy", ["seed=1"], conf_dir=conf)


def test_evaluations_of_trained_runs_are_no_sweep() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint=a: a sweep trains.*paperbench eval faster-rcnn checkpoint=a"):
        plan_overrides("faster-rcnn", ["checkpoint=a,b"])


def test_an_unknown_experiment(conf: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_overrides("toyy", ["seed=1,2"], conf_dir=conf)
    assert len(caught.value.mistakes) == 1
    assert "Nearest: toy" in str(caught.value)


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "together"),
    [("seed=1", True), ("device=cpu", False), ("precision=bfloat16", False), ("threads=3", False), ("nproc=2", False)],
)
def test_runs_that_share_a_process_have_the_settings_of_one(override: str, together: bool) -> None:
    """A stack computes on the device, in the precision and with the threads of its first run."""
    plain = {"scale": "smoke", "precision": "float32", "threads": "1"}
    key, _, value = override.partition("=")
    asked = [plain, {**plain, key: value}, {**plain, "seed": "9"}]
    requests = [
        Request(experiment="vae", overrides=tuple(f"{key}={value}" for key, value in words.items()), labels={})
        for words in asked
    ]
    first, other, last = compose_members(requests)
    groups = jobs_of([first, other, last], stacked=True)
    assert groups == ([(first, other, last)] if together else [(first, last), (other,)])
    assert jobs_of([first, other, last], stacked=False) == [(first,), (other,), (last,)]
