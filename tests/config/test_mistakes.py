"""What is said about overrides and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.config.compose import compose
from paperbench.errors import EXIT_USAGE, ConfigError
from tests.user_folder import write


def mistakes(*overrides: str, experiment: str = "faster-rcnn") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(experiment, overrides)
    assert caught.value.exit_code == EXIT_USAGE
    return list(caught.value.mistakes)


@pytest.mark.parametrize(
    ("experiment", "override", "expected"),
    [
        ("stn-mnist", "model=st-cn", "Nearest: st-cnn, st-fcn. Choices: cnn, dcn, fcn, st-cnn, st-fcn (now st-cnn)"),
        ("faster-rcnn", "model=zz", "Choices: faster-rcnn, fpn, mask-rcnn, rfcn, ssd, yolo (now faster-rcnn)"),
        ("rcnn", "model=zz", "Choices: fast-rcnn, rcnn, sppnet (now rcnn)"),
        ("rca-segmenters", "model=zz", "Choices: none for this task (now null)"),
    ],
)
def test_a_mistaken_choice_of_model_is_answered_with_those_of_the_task(
    experiment: str, override: str, expected: str
) -> None:
    assert mistakes(override, experiment=experiment) == [f"{override}: no such choice of model. {expected}"]


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_an_unknown_key_is_named_with_the_nearest_and_its_value(plus: str) -> None:
    assert mistakes(f"{plus}optim.lrr=1") == [
        f'optim.lrr: no such key (given as "{plus}optim.lrr=1"). Nearest: optim.lr (now 0.001)'
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "data=pennfudann",
            "data=pennfudann: no such choice of data. Nearest: pennfudan. "
            "Choices: coco, pennfudan, shapes, voc, yolo (now shapes)",
        ),
        ("optim.lr=abc", 'optim.lr: expected a number above 0, given abc (as "optim.lr=abc"). Now 0.001'),
        (
            "model.bakbone=zf",
            'model.bakbone: no such key (given as "model.bakbone=zf"). Nearest: model.backbone (now small)',
        ),
        ("scale=shrt", "scale=shrt: no such choice of scale. Nearest: short. Choices: paper, short, smoke (now short)"),
        ("optim.lr", "optim.lr: not an override; write KEY=VALUE, such as optim.lr=…"),
        ("=3", "=3: no key before the =; write KEY=VALUE"),
        (
            "objectness=x",
            'objectness: no such key (given as "objectness=x"). Nearest: model.rpn.objectness (now softmax)',
        ),
        (
            "modle.backbone=zf",
            'modle.backbone: no such key (given as "modle.backbone=zf"). Nearest: model.backbone (now small)',
        ),
        (
            "model.backbone=vgg",
            "model.backbone: expected one of small, alexnet, zf, vgg16, resnet50, squeezenet1_1, given vgg "
            '(as "model.backbone=vgg"). Nearest: vgg16. Now small',
        ),
        ("seed=-1", 'seed: expected a whole number of 0 or more, given -1 (as "seed=-1"). Now 0'),
        ("seed=1.5", 'seed: expected a whole number of 0 or more, given 1.5 (as "seed=1.5"). Now 0'),
        ("seed=true", 'seed: expected a whole number of 0 or more, given true (as "seed=true"). Now 0'),
        ("seed=null", 'seed: expected a whole number of 0 or more, given null (as "seed=null"). Now 0'),
        ("optim.lr=nan", 'optim.lr: expected a number above 0, given nan (as "optim.lr=nan"). Now 0.001'),
        ("data.flip=2", 'data.flip: expected a number from 0 to 1, given 2 (as "data.flip=2"). Now 0.5'),
        ("device=gpu", 'device: expected one of auto, cpu, mps, cuda, cuda:N, given gpu (as "device=gpu"). Now auto'),
        (
            "optim.milestones=[0.5,2]",
            "optim.milestones: expected a list like [a,b], each a number from 0 to 1, given [0.5,2] "
            '(as "optim.milestones=[0.5,2]"). Now []',
        ),
        (
            "model.head.target_std=[1,2]",
            "model.head.target_std: expected a list of 4, each a number above 0, given [1,2] "
            '(as "model.head.target_std=[1,2]"). Now [0.1,0.1,0.2,0.2]',
        ),
        (
            "model.backbone.depth=3",
            'model.backbone.depth: no such key (given as "model.backbone.depth=3"). '
            "model.backbone is a single value (now small) without keys below it",
        ),
        (
            "data.root=/d",
            'data.root: no such key (given as "data.root=/d"). '
            "data=shapes has none; data=voc, data=coco, data=yolo, data=pennfudan would",
        ),
        ("data.name=voc", "data.name=voc: choose with data=voc, which loads all that belongs to it"),
        ("task=detect-eval", "task=detect-eval: cannot be set, it follows from the experiment"),
        ("experiment=x", "experiment=x: cannot be set, the experiment is the first argument of the command"),
        (
            "~optim.lr",
            "~optim.lr: keys cannot be deleted, each has a value. Set it instead: optim.lr=VALUE (now 0.001)",
        ),
        ("~data", "~data: data cannot be taken away. Choices: coco, pennfudan, shapes, voc, yolo (now shapes)"),
        ("optim@train=sgd", "optim@train=sgd: packages (@) are not used here; write optim=VALUE"),
        ("optim={lr:3}", "optim={lr:3}: optim= takes a name; keys are set one by one, as optim.KEY=VALUE"),
    ],
)
def test_the_message(override: str, expected: str) -> None:
    assert mistakes(override) == [expected]


@pytest.mark.parametrize("override", ["optim.lr=0.1,0.2", "data=voc,coco", "seed=range(3)", "seed=choice(1,2)"])
def test_several_values_are_a_sweep(override: str) -> None:
    (text,) = mistakes(override)
    assert text.startswith(f"{override}: several values are a sweep")
    assert "give one value" in text


def test_a_value_that_cannot_be_read_comes_with_its_quoted_form() -> None:
    (text,) = mistakes("model.weights=net(1).pth")
    assert "quoted twice: 'model.weights=\"net(1).pth\"'" in text


def test_all_mistakes_come_in_one_message() -> None:
    found = mistakes(
        "optim.lrr=1",
        "data=pennfudann",
        "optim.lr=abc",
        "model.bakbone=zf",
        "scale=shrt",
        "optim.gamma",
        "=3",
        "seed=1,2",
    )
    assert {text.partition(":")[0] for text in found} == {
        "optim.lrr",
        "data=pennfudann",
        "optim.lr",
        "model.bakbone",
        "scale=shrt",
        "optim.gamma",
        "=3",
        "seed=1,2",
    }
    assert len(found) == 8


def test_other_keys_are_judged_with_the_choice_that_was_probably_meant() -> None:
    found = mistakes("data=vok", "data.year=2012", "data.rot=1")
    assert [text.partition(":")[0] for text in found] == ["data=vok", "data.rot"]
    assert "Nearest: data.root" in found[1]


def test_nothing_is_said_about_keys_below_a_hopeless_choice() -> None:
    assert [text.partition(":")[0] for text in mistakes("data=imagenet", "data.year=2012")] == ["data=imagenet"]


def test_a_contradiction_is_a_mistake_and_a_repetition_is_not() -> None:
    assert mistakes("seed=1", "seed=2") == ["seed: given twice, as seed=1 and as seed=2"]
    assert compose("faster-rcnn", ["seed=1", "seed=1"]).config.seed == 1


def test_a_task_without_data_takes_none() -> None:
    assert mistakes("data=voc", experiment="detections") == [
        'data: task detect-score reads no data set (given as "data=voc")'
    ]


def test_an_unknown_experiment() -> None:
    assert mistakes(experiment="faster-rcn") == [
        "faster-rcn: no such experiment. Nearest: faster-rcnn, fast-rcnn, mask-rcnn (paperbench ls experiments)"
    ]
    (text,) = mistakes(experiment="zzz")
    assert text.startswith("zzz: no such experiment. Experiments: ")
    assert "faster-rcnn" in text


def test_nothing_of_pydantic_shows() -> None:
    text = "\n".join(mistakes("data.size=big", "data.short_side=1.5", "model.rpn.objectness=logistic"))
    for foreign in ("ShapesData", "union", "pydantic", "validation error", "tagged", "Input should"):
        assert foreign not in text


# --- mistakes in files ------------------------------------------------------------------------------------------------

OWN = "# @package _global_\ndefaults: [faster-rcnn, _self_]\n"


def test_a_mistake_in_a_file_is_named_with_file_and_line(conf: Path) -> None:
    write(conf / "experiment/own.yaml", f"{OWN}optim:\n  lrr: 3\ndata:\n  short_side: big\n")

    assert mistakes("seed=x", experiment="own") == [
        'seed: expected a whole number of 0 or more, given x (as "seed=x"). Now 0',
        "optim.lrr: no such key (in conf/experiment/own.yaml:4). Nearest: optim.lr (now 0.001)",
        "data.short_side: expected a whole number above 0, given big (in conf/experiment/own.yaml:6)",
    ]


def test_a_mistake_in_a_group_file_is_found_there(conf: Path) -> None:
    write(conf / "data/street.yaml", "name: voc\nclases: [cart]\n")

    (text,) = mistakes("data=street")
    assert text.startswith("data.clases: no such key (in conf/data/street.yaml:2). Nearest: data.classes")


def test_an_override_mends_a_files_value(conf: Path) -> None:
    write(conf / "experiment/own.yaml", f"{OWN}seed: big\n")

    assert compose("own", ["seed=3"]).config.seed == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{OWN}optim: {{lr: [3\n", "not YAML"),
        (f"{OWN}seed: ${{nothere}}\n", "Interpolation key 'nothere' not found"),
        (
            f"{OWN}preset: faster-rcn\n",
            "preset: no preset faster-rcn (experiment file conf/experiment/own.yaml). Nearest: faster-rcnn",
        ),
        (f"{OWN}recipe: other\n", "recipe: no such key (in conf/experiment/own.yaml"),
        (
            "# @package _global_\ndefaults:\n  - faster-rcnn\n  - override /recipe: faster-rcnn\n",
            "recipe was renamed to preset, a value of the experiment: write `preset: NAME`",
        ),
        (
            "# @package _global_\ndefaults:\n  - faster-rcnn\n  - override /data: nothere\n",
            "Could not find 'data/nothere'",
        ),
        ("# @package _global_\nscale: short\n", "says no task"),
        ("# @package _global_\ntask: detect-trian\n", "Nearest: detect-train"),
        (f"{OWN}data: {{name: cifar}}\n", "task detect-train knows shapes, voc, coco, yolo, pennfudan, not cifar"),
        ("# @package _global_\ntask: detect-train\ndata: {flip: 0}\n", "data.name: nothing chosen"),
    ],
)
def test_a_file_that_cannot_be_composed_is_named(conf: Path, content: str, said: str) -> None:
    write(conf / "experiment/own.yaml", content)

    text = "\n".join(mistakes(experiment="own"))
    assert said in text
    assert "conf/experiment/own.yaml" in text


def test_what_was_renamed_is_answered_with_its_new_name(conf: Path) -> None:
    assert mistakes("recipe=vae") == ["recipe=vae: recipe was renamed; write preset=vae"]
    (text,) = mistakes("preset=nonsense")
    assert text.startswith("preset: no preset nonsense (given as preset=nonsense). Presets: distill, ")
    (conf / "schedule").mkdir()
    assert "conf/schedule: was renamed. schedule/NAME/SCALE.yaml is preset/NAME/SCALE.yaml" in mistakes()[0]
