"""From an experiment's name and overrides to a complete, checked configuration.

Hydra reads the overrides' grammar and merges the files that the group choices name; values are then set here, and the result
is held against the task's schema. Every mistake, from the command line or from a file, is collected into one `ConfigError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from paperbench.catalog import DATASETS, MODELS, TASKS, TaskSpec
from paperbench.config import _hydra
from paperbench.config._hydra import Merged, Override
from paperbench.config.digests import changed_since_training, digests_of
from paperbench.config.explain import Explainer, Origin, look_up, show
from paperbench.config.fields import complete, hints, members, section_of, strip, union_of
from paperbench.config.paths import expanded, installed_confs, notices, options, search_path, settle_paths, short
from paperbench.config.sources import KeyFinder
from paperbench.config.suggest import nearest
from paperbench.config.validate import dump, schema_of, task_named, validate
from paperbench.errors import ConfigError

OUTPUT_ROOT = "output.root"

FIXED_KEYS = {
    "experiment": "the experiment is the first argument of the command",
    "task": "it follows from the experiment",
    "digests": "it follows from the files that the configuration names",
}


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A configuration ready to run: `config` is the validated instance, `resolved` the same as plain data."""

    experiment: str
    task: TaskSpec
    config: Any
    resolved: dict[str, Any]
    overrides: tuple[str, ...]
    choices: dict[str, str | None]
    source: Path | None
    """The experiment's file; None for a configuration that was taken over from a run."""


def compose(
    experiment: str,
    overrides: Sequence[str] = (),
    *,
    conf_dir: Path | None = None,
    installed_only: bool = False,
    base: Mapping[str, Any] | None = None,
    base_file: Path | None = None,
) -> Composed:
    """Composes `experiment` and applies `overrides` (Hydra's grammar).

    With `base`, the resolved configuration of a trained run, nothing is composed: its task's `evaluated_by` is set up with
    the same values, and overrides change them; `data=NAME` loads that file over the run's data. `base_file` is named in
    messages. `installed_only` leaves the user's own folder of configurations out. Raises `ConfigError` with every mistake found.
    """
    folders = installed_confs() if installed_only else search_path(conf_dir)
    mistakes: list[str] = []
    parsed = _parse(overrides, mistakes)
    if base is not None:
        return _on_base(base, base_file, folders, parsed, mistakes)
    experiments = options("experiment", folders)
    if experiment not in experiments:
        near = nearest(experiment, experiments)
        listed = f"{'Nearest' if near else 'Experiments'}: {', '.join(near or experiments)}"
        raise ConfigError(
            f"{experiment}: no such experiment. {listed} (paperbench ls experiments)", *mistakes, *notices()
        )
    source = experiments[experiment]
    merged = _merge(folders, experiment, source, {})
    values, chosen, doubtful = _choose(parsed, merged, folders, mistakes)
    if chosen:
        merged = _merge(folders, experiment, source, chosen)
    if presets := _presets(merged, values, folders, source, mistakes):
        merged = _merge(folders, experiment, source, chosen, presets)
    origin = Origin(given=_given(parsed, merged.choices), file=KeyFinder(merged.files, folders))
    plain = _resolve(merged.config, source)
    try:
        task = task_named(plain.get("task"))
    except ConfigError as error:
        raise ConfigError(
            *mistakes, *(f"{text} (experiment file {short(source)})" for text in error.mistakes)
        ) from None
    resolved = _apply(task, {**plain, "experiment": experiment}, merged.config, values, origin, mistakes, doubtful)
    config = _check(task, resolved, {**plain, "experiment": experiment}, origin, mistakes, doubtful)
    return Composed(
        experiment=experiment,
        task=task,
        config=config,
        resolved=dump(config),
        overrides=tuple(overrides),
        choices=merged.choices,
        source=source,
    )


def output_root(overrides: Sequence[str], default: str = "outputs") -> Path:
    """Return the folder below which runs lie: that of the last `output.root=` among the overrides, which need not be valid."""
    found = default
    for text in overrides:
        if text.lstrip("+").startswith(f"{OUTPUT_ROOT}="):
            found = str(_hydra.parse(text).value)
    return expanded(found)


def _merge(
    folders: Sequence[Path],
    experiment: str,
    source: Path,
    chosen: Mapping[str, str],
    presets: Sequence[str] = (),
) -> Merged:
    try:
        return _hydra.merge(folders, {"experiment": experiment, **chosen}, presets)
    except ConfigError as error:
        if "'recipe'" in str(error) or "'/recipe'" in str(error):
            raise ConfigError(
                "recipe was renamed to preset, a value of the experiment: write `preset: NAME` in place of the entry "
                f"`override /recipe: NAME` among the defaults (experiment file {short(source)})"
            ) from error.__cause__
        # A parser names the file by itself, and it need not be the experiment's.
        where = "" if ".yaml" in str(error) else f" (experiment file {short(source)})"
        raise ConfigError(f"{error}{where}") from error.__cause__


def _presets(
    merged: Merged, values: Sequence[Override], folders: Sequence[Path], source: Path, mistakes: list[str]
) -> list[str]:
    """The files of `preset=NAME` that fit the run, weakest first; `conf/config.yaml` says which. An unknown preset is a mistake."""
    plain = OmegaConf.to_container(merged.config, resolve=False)
    assert isinstance(plain, dict)
    now = {str(key): value for key, value in plain.items()}
    now |= {override.key: override.value for override in values if "." not in override.key and not override.deletes}
    name, scale, model, data = (
        now.get("preset"),
        now.get("scale"),
        merged.choices.get("model"),
        merged.choices.get("data"),
    )
    if name is None or not merged.takes_presets:
        return []
    files = options("preset", folders)
    known = sorted({file.rpartition("/")[0] for file in files})
    if name not in known:
        near = nearest(str(name), known)
        given = next((f" (given as {override.text})" for override in values if override.key == "preset"), "")
        mistakes.append(
            f"preset: no preset {show(name)}{given or f' (experiment file {short(source)})'}."
            f" {'Nearest' if near else 'Presets'}: {', '.join(near or known)}"
        )
        return []
    others = [f"{key}-{show(value)}" for key, value in now.items() if isinstance(value, str | int | float)]
    of_model = [f"model-{model}", *(f"model-{model}-{other}" for other in others)]
    fitting = [scale, *(f"{scale}-{part}" for part in (*of_model, f"data-{data}", *others))]
    return [file for part in dict.fromkeys(fitting) if (file := f"{name}/{part}") in files]


def _parse(overrides: Sequence[str], mistakes: list[str]) -> list[Override]:
    """All overrides that can be read; what can never be meant is put among the mistakes."""
    readable: list[Override] = []
    seen: dict[str, str] = {}
    for text in overrides:
        try:
            override = _hydra.parse(text)
        except ConfigError as error:
            mistakes.extend(error.mistakes)
            continue
        if override.key == "recipe":
            mistakes.append(f"{text}: recipe was renamed; write preset={override.raw}")
            continue
        fixed = re.split(r"[./]", override.key)[0]
        if fixed in FIXED_KEYS:
            mistakes.append(f"{text}: cannot be set, {FIXED_KEYS[fixed]}")
        elif override.package is not None:
            mistakes.append(f"{text}: packages (@) are not used here; write {override.key}=VALUE")
        elif override.sweeps:
            mistakes.append(
                f"{text}: several values are a sweep, and this command runs one configuration: give one value, or run each"
                " of them with `paperbench sweep`."
                f" A list is written {override.key}=[a,b], text with a comma '{override.key}=\"a,b\"'"
            )
        elif override.key in seen and seen[override.key] != text:
            mistakes.append(f"{override.key}: given twice, as {seen[override.key]} and as {text}")
        else:
            readable.append(override)
        seen.setdefault(override.key, text)
    return readable


def _given(parsed: list[Override], choices: Mapping[str, Any]) -> dict[str, str]:
    """Overrides by the key they set; a group choice stands for the name in its file, not for everything else there."""
    return {f"{o.key}.name" if o.key in choices else o.key: o.text for o in parsed}


def _choose(
    parsed: list[Override], merged: Merged, folders: Sequence[Path], mistakes: list[str]
) -> tuple[list[Override], dict[str, str], set[str]]:
    """Splits overrides into values and group choices, and checks the choices.

    A choice that does not exist is a mistake; the nearest one then stands in for it, so that the other overrides can still be
    judged. Groups without one are returned as doubtful: what lies below them is not judged.
    """
    values: list[Override] = []
    chosen: dict[str, str] = {}
    doubtful: set[str] = set()
    for override in parsed:
        group, current = override.key, merged.choices.get(override.key)
        if group not in merged.choices:
            values.append(override)
            continue
        available = options(group, folders)
        name = override.raw if not override.quoted else str(override.value)
        if override.deletes:
            usable = _usable(group, available, merged)
            mistakes.append(f"{override.text}: {group} cannot be taken away. Choices: {_listed(usable, current)}")
        elif isinstance(override.value, dict | list):
            mistakes.append(f"{override.text}: {group}= takes a name; keys are set one by one, as {group}.KEY=VALUE")
        elif name in available:
            chosen[group] = name
        elif not (name == "null" and current is None):
            usable = _usable(group, available, merged)
            near = nearest(name, usable)
            guess = f" Nearest: {', '.join(near)}." if near else ""
            mistakes.append(f"{override.text}: no such choice of {group}.{guess} Choices: {_listed(usable, current)}")
            if near:
                chosen[group] = near[0]
            else:
                doubtful.add(group)
    return values, chosen, doubtful


def _usable(group: str, available: Mapping[str, Path], merged: Merged) -> list[str]:
    """For `data` and `model`, the names that this task can use (and the user's own); for other groups, all."""
    task = OmegaConf.select(merged.config, "task")
    specs = {"data": DATASETS, "model": MODELS}.get(group, {})
    unfit = {spec.name for spec in specs.values() if task in TASKS and task not in spec.tasks}
    return [name for name in available if name not in unfit]


def _listed(names: list[str], current: str | None) -> str:
    return f"{', '.join(names) or 'none for this task'} (now {show(current)})"


def _resolve(config: DictConfig, source: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"{error.full_key or source}: {first} (experiment file {short(source)})") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _apply(
    task: TaskSpec,
    now: dict[str, Any],
    config: Any,
    values: list[Override],
    origin: Origin,
    mistakes: list[str],
    doubtful: set[str],
) -> dict[str, Any]:
    """The complete configuration with the overrides' values set. Keys that do not exist are put among the mistakes."""
    schema = schema_of(task)
    explainer = Explainer(task, schema, now, origin)
    # Schema defaults lie under the files, so that every key exists; interpolations of the files stay live over them.
    target = OmegaConf.merge(OmegaConf.create(complete(schema, now)), config)
    OmegaConf.set_struct(target, False)
    for override in values:
        if override.key.partition(".")[0] in doubtful:
            continue
        text = _refusal(override, schema, explainer)
        if text is not None:
            mistakes.append(text)
            continue
        value = _as_written(override, explainer)
        try:
            OmegaConf.update(target, override.key, value, merge=True, force_add=True)
        except OmegaConfBaseException as error:
            mistakes.append(f"{override.text}: {str(error).partition(chr(10))[0]}")
    try:
        resolved = OmegaConf.to_container(target, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(*mistakes, f"{error.full_key}: {str(error).partition(chr(10))[0]}") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _refusal(override: Override, schema: type, explainer: Explainer) -> str | None:
    """Why this override cannot be applied; None if it can."""
    key = override.key
    annotation, variant_key = _annotation(schema, explainer.now, key)
    if annotation is None:
        return explainer.unknown(key)
    current = look_up(explainer.now, key)
    if override.deletes:
        return f"{override.text}: keys cannot be deleted, each has a value. Set it instead: {key}=VALUE (now {show(current)})"
    if variant_key is not None and key == variant_key and override.value != current:
        group = key.rpartition(".")[0]
        return f"{override.text}: choose with {group}={show(override.value)}, which loads all that belongs to it"
    return None


def _annotation(schema: type, now: Mapping[str, Any], key: str) -> tuple[Any, str | None]:
    """The annotation at a dotted key (None if there is no such key), and the key that tells its section's variants apart."""
    section: type | None = schema
    value: Any = now
    annotation: Any = None
    variant_key: str | None = None
    walked: list[str] = []
    for name in key.split("."):
        if section is None or name not in hints(section):
            return None, None
        walked.append(name)
        annotation = hints(section)[name]
        value = value.get(name) if isinstance(value, Mapping) else None
        section = section_of(annotation, value)
        if variants := union_of(annotation):
            variant_key = f"{'.'.join(walked)}.{variants.discriminator}"
    return annotation, variant_key


def _as_written(override: Override, explainer: Explainer) -> Any:
    """The value, except that text keys take what was typed: `data.year=2012` and `data.train_split=1_000` are text."""
    known = explainer.keys.get(override.key)
    if known is None or not isinstance(override.value, int | float):
        return override.value
    types = {strip(member)[0] for member in members(known.annotation)} - {type(None)}
    return override.raw if types == {str} else override.value


def _check(
    task: TaskSpec,
    resolved: dict[str, Any],
    now: Mapping[str, Any],
    origin: Origin,
    mistakes: list[str],
    doubtful: set[str],
) -> Any:
    """The validated configuration, with its paths settled; raises all mistakes together."""
    settle_paths(schema_of(task), resolved)
    resolved["digests"] = digests_of(schema_of(task), resolved)
    config = None
    try:
        config = validate(task, resolved, now=now, origin=origin)
    except ConfigError as error:
        mistakes.extend(text for text in error.mistakes if text.partition(":")[0].partition(".")[0] not in doubtful)
    if mistakes:
        raise ConfigError(*dict.fromkeys(mistakes))
    return config


# --- evaluation of a trained run --------------------------------------------------------------------------------------


def _on_base(
    base: Mapping[str, Any],
    base_file: Path | None,
    folders: Sequence[Path],
    parsed: list[Override],
    mistakes: list[str],
) -> Composed:
    trained = task_named(base.get("task"))
    task = TASKS[trained.evaluated_by] if trained.evaluated_by else trained
    schema = schema_of(task)
    now: dict[str, Any] = {**deepcopy(dict(base)), "task": task.name}
    choices: dict[str, str | None] = {"data": look_up(now, "data.name"), "model": look_up(now, "model.name")}
    values: list[Override] = []
    doubtful: set[str] = set()
    for override in parsed:
        group = override.key
        if group == "data" and "data" in hints(schema):
            merged = Merged(config=OmegaConf.create({"task": task.name}), choices={"data": choices["data"]}, files=())
            _, chosen, doubt = _choose([override], merged, folders, mistakes)
            doubtful |= doubt
            if "data" in chosen:
                choices["data"] = chosen["data"]
                loaded = _resolve(_hydra.load(folders, f"data/{chosen['data']}"), folders[0] / "data")
                now["data"] = _other_data(schema, now.get("data"), loaded.get("data", {}))
        elif group in ("scale", "preset", "model", "optim"):
            current = look_up(now, f"{group}.name", look_up(now, group))
            if override.raw != str(current):
                where = f" ({base_file})" if base_file else ""
                mistakes.append(
                    f"{override.text}: the run was trained with {group}={show(current)}{where}; only data= can change"
                )
        else:
            values.append(override)
    file = str(base_file) if base_file else None
    origin = Origin(given=_given(parsed, choices), file=lambda key: file)
    resolved = _apply(task, now, OmegaConf.create(now), values, origin, mistakes, doubtful)
    config = _check(task, resolved, now, origin, mistakes, doubtful)
    if changed := changed_since_training(base, base_file, resolved):
        raise ConfigError(*changed)
    return Composed(
        experiment=config.experiment,
        task=task,
        config=config,
        resolved=dump(config),
        overrides=tuple(o.text for o in parsed),
        choices=choices,
        source=None,
    )


def _other_data(schema: type, before: Any, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """`loaded` over what the run's data section shares with it: sizes and limits stay as they were in training."""
    annotation = hints(schema)["data"]
    after = section_of(annotation, loaded)
    if after is None or not isinstance(before, Mapping):
        return dict(loaded)
    shared = {key: value for key, value in before.items() if key in hints(after) and key != "name"}
    return {**shared, **loaded}
