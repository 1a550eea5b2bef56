"""What overrides do when they are right."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest

import paperbench
from paperbench.config import _hydra
from paperbench.config.compose import compose
from paperbench.errors import ConfigError
from tests.user_folder import write


def test_values_and_groups_are_applied_over_the_preset() -> None:
    composed = compose(
        "faster-rcnn", ["data=pennfudan", "scale=smoke", "optim.lr=0.25", "++train.samples=6", "+seed=5"]
    )

    assert composed.choices["data"] == "pennfudan"
    assert composed.config.data.name == "pennfudan"
    assert composed.config.train.batch_size == 2  # the smoke preset's
    assert (composed.config.optim.lr, composed.config.train.samples, composed.config.seed) == (0.25, 6, 5)


def test_the_files_of_a_preset_follow_from_scale_and_data() -> None:
    on_shapes, on_photographs = compose("faster-rcnn"), compose("faster-rcnn", ["data=voc"])

    assert on_shapes.choices["data"] == "shapes"
    assert on_shapes.config.model.backbone == "small"
    assert on_photographs.config.model.backbone == "squeezenet1_1"
    assert compose("faster-rcnn", ["scale=paper"]).config.model.backbone == "vgg16"


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ([], 1.0),
        (["transform=tps"], 4.0),
        (["transform=projective"], 1.0),
        (["transform=tps", "model=st-fcn"], 1.0),
        (["transform=tps", "scale=paper"], 1.0),
        (["transform=tps", "model.localisation_lr=2"], 2.0),
    ],
)
def test_a_presets_value_may_follow_another_key(overrides: list[str], rate: float) -> None:
    assert compose("stn-mnist", overrides).config.model.localisation_lr == rate


def test_a_preset_is_inherited_and_can_be_chosen(conf: Path) -> None:
    write(conf / "preset/tiny/short.yaml", "# @package _global_\ntrain: {samples: 7}\n")
    write(conf / "preset/tiny/short-data-shapes.yaml", "# @package _global_\ndata: {train_images: 3}\n")
    write(conf / "preset/tiny/short-seed-5.yaml", "# @package _global_\ntrain: {batch_size: 5}\n")

    assert compose("mine").config.preset == "faster-rcnn"
    chosen = compose("mine", ["preset=tiny", "seed=5"]).config
    assert (chosen.preset, chosen.optim.lr) == ("tiny", 0.5)
    assert (chosen.train.samples, chosen.train.batch_size, chosen.data.train_images) == (7, 5, 3)
    assert compose("mine", ["preset=null"]).config.train.samples == 1000


def test_an_optimizer_replaces_the_presets_own() -> None:
    assert compose("faster-rcnn").config.optim.name == "adamw"

    assert compose("faster-rcnn", ["optim=sgd"]).config.optim.name == "sgd"


def test_the_result_is_complete_and_plain() -> None:
    resolved = compose("faster-rcnn").resolved

    assert resolved["model"]["rpn"]["positive_iou"] == 0.7  # only the schema says so
    assert resolved["model"]["head"]["target_std"] == [0.1, 0.1, 0.2, 0.2]  # a list, not a tuple
    assert resolved["output"] == {"root": "outputs"}


@pytest.mark.parametrize("year", ["2012", "1_000", "VOC07"])
def test_a_text_key_takes_what_was_typed(year: str) -> None:
    assert compose("faster-rcnn", ["data=voc", f"data.year={year}"]).config.data.year == year


def test_a_quoted_value_may_hold_anything(tmp_path: Path) -> None:
    composed = compose("detections", ['gt="a (1), b"', "classes=[cat,dog]"])

    assert composed.config.gt == str(tmp_path / "a (1), b")
    assert composed.config.classes == ("cat", "dog")


def test_a_list_replaces_a_list() -> None:
    assert compose("faster-rcnn", ["model.anchors.sizes=[10,20]"]).config.model.anchors.sizes == (10.0, 20.0)


def test_a_section_is_merged_key_by_key() -> None:
    composed = compose("faster-rcnn", ["train={samples:12,batch_size:3}"])

    assert (composed.config.train.samples, composed.config.train.batch_size) == (12, 3)
    assert composed.config.train.clip_norm == 10.0


def test_an_override_may_refer_to_another_key() -> None:
    assert compose("faster-rcnn", ["data.max_side=${data.short_side}", "data.short_side=99"]).config.data.max_side == 99


# --- paths ------------------------------------------------------------------------------------------------------------


def test_data_root_is_stored_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose("faster-rcnn", ["data=voc"]).config.data.root == str(tmp_path / "data")
    assert compose("faster-rcnn", ["data=voc", "data.root=here"]).config.data.root == str(tmp_path / "here")

    monkeypatch.setenv("PAPERBENCH_DATA", str(tmp_path / "there"))
    assert compose("faster-rcnn", ["data=voc"]).config.data.root == str(tmp_path / "there")


def test_weights_that_are_a_file_become_absolute_and_names_stay(tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()

    assert compose("faster-rcnn", ["model.weights=net.pth"]).config.model.weights == str(tmp_path / "net.pth")
    assert compose("faster-rcnn", ["model.weights=DEFAULT"]).config.model.weights == "DEFAULT"


# --- the user's own configurations ------------------------------------------------------------------------------------


def test_a_users_folder_adds_experiments(conf: Path) -> None:
    composed = compose("mine")

    assert composed.source == conf / "experiment/mine.yaml"
    assert composed.experiment == composed.resolved["experiment"] == "mine"
    assert composed.config.optim.lr == 0.5
    assert composed.config.model.backbone == "small"


def test_a_users_folder_shadows_shipped_files(conf: Path) -> None:
    write(conf / "data/shapes.yaml", "name: shapes\nsize: 64\n")

    data = compose("faster-rcnn").config.data
    assert data.size == 64
    assert data.train_images == 2000  # the schema's, for the shipped file is not read


def test_a_users_folder_shadows_an_experiment(conf: Path) -> None:
    file = write(conf / "experiment/detections.yaml", "# @package _global_\ntask: detect-score\nsplit: mine\n")

    composed = compose("detections")
    assert composed.source == file
    assert composed.config.split == "mine"


def test_a_users_primary_config_comes_first(conf: Path) -> None:
    primary = "defaults: [_self_, {data: null}, {model: null}, {scale: paper}, {experiment: '???'}]\n"
    write(conf / "config.yaml", primary)

    assert compose("detections").config.scale == "paper"


def test_conf_dir_replaces_the_users_folder(conf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other folder"
    write(other / "experiment/theirs.yaml", "# @package _global_\ndefaults: [faster-rcnn, _self_]\nseed: 9\n")

    assert compose("theirs", conf_dir=other).config.seed == 9
    with pytest.raises(ConfigError, match="mine: no such experiment"):
        compose("mine", conf_dir=other)


def test_another_programs_conf_folder_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "conf/config.yaml", "this: is not ours\n")

    assert compose("faster-rcnn").config.task == "detect-train"


def test_a_conf_dir_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        compose("faster-rcnn", conf_dir=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds none of the folders experiment"):
        compose("faster-rcnn", conf_dir=tmp_path)


def test_a_users_own_group_can_be_chosen(conf: Path) -> None:
    write(conf / "data/street.yaml", "name: voc\nyear: Street\nclasses: [cart, tram]\n")

    composed = compose("faster-rcnn", ["data=street", "data.flip=0"])
    assert composed.choices["data"] == "street"
    assert composed.config.data.classes == ("cart", "tram")


# --- a trained run as the base ----------------------------------------------------------------------------------------


def test_a_base_keeps_its_values_and_takes_overrides() -> None:
    base = compose("faster-rcnn", ["optim.lr=0.125", "seed=4"]).resolved

    composed = compose("faster-rcnn", ["checkpoint=runs/a", "evaluation.batch_size=9"], base=base)
    assert composed.task.name == composed.resolved["task"] == "detect-eval"
    assert (composed.config.optim.lr, composed.config.seed) == (0.125, 4)
    assert (composed.config.checkpoint, composed.config.evaluation.batch_size) == ("runs/a", 9)


def test_other_data_are_loaded_over_a_base_but_sizes_stay_as_trained() -> None:
    base = compose("faster-rcnn", ["data.short_side=123", "data.train_images=7"]).resolved

    data = compose("faster-rcnn", ["checkpoint=a", "data=voc", "data.year=2012"], base=base).config.data
    assert (data.name, data.year, data.test_split) == ("voc", "2012", "test")
    assert data.short_side == 123
    assert data.root is not None


@pytest.mark.parametrize("override", ["scale=paper", "preset=other", "model=other", "optim=sgd"])
def test_what_was_trained_cannot_be_chosen_again(override: str) -> None:
    base = compose("faster-rcnn").resolved

    with pytest.raises(ConfigError, match="the run was trained with"):
        compose("faster-rcnn", ["checkpoint=a", override], base=base)
    kept = compose("faster-rcnn", ["checkpoint=a", "scale=short", "model=faster-rcnn"], base=base)
    assert kept.config.scale == "short"


def test_mistakes_on_a_base_are_collected_too() -> None:
    base = compose("faster-rcnn").resolved

    with pytest.raises(ConfigError) as caught:
        compose(
            "faster-rcnn",
            ["checkpoint=a", "data=vocc", "evaluation.batchsize=1", "evaluation.proposals=maybe"],
            base=base,
        )
    assert [text.partition(":")[0] for text in caught.value.mistakes] == [
        "data=vocc",
        "evaluation.batchsize",
        "evaluation.proposals",
    ]


# --- architecture -----------------------------------------------------------------------------------------------------


def test_only_one_module_imports_hydra() -> None:
    package = Path(paperbench.__file__).parent
    importing = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "hydra" for name in names):
                importing.add(file.relative_to(package).as_posix())
    assert importing == {"config/_hydra.py"}


def test_composing_leaves_hydras_global_state_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    compose("faster-rcnn")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.classes=[café,dog]", ["café", "dog"]),
        ("data.classes=[车, traffic light,C#,a&b]", ["车", "traffic light", "C#", "a&b"]),
        ("data.classes=['é',\"x,y\",ö]", ["é", "x,y", "ö"]),
        ("data.root=/tmp/données", "/tmp/données"),
        ("data.classes=[2wheels,4wheels]", ["2wheels", "4wheels"]),
    ],
)
def test_letters_beyond_hydras_grammar_need_no_quotes(text: str, value: object) -> None:
    override = _hydra.parse(text)
    assert override.value == value
    assert not override.sweeps


def test_several_values_with_such_letters_are_a_sweep() -> None:
    assert _hydra.parse("data.root=é,ö").sweeps
    assert _hydra.alternatives("data.root=é,ö", lambda group: (), most=5) == ['"é"', '"ö"']


def test_the_remedy_for_a_list_quotes_its_elements_and_can_be_pasted() -> None:
    with pytest.raises(ConfigError) as caught:
        _hydra.parse("data.classes=[it's,b]")
    word = shlex.split(str(caught.value).partition("twice: ")[2])[0]
    assert _hydra.parse(word).value == ["it's", "b"]
