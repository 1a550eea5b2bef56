"""The one module that imports Hydra: its override grammar and its composition of files, nothing else of it.

`hydra.main` is not used (it re-reads `sys.argv`), nor is Hydra's merging of values: Hydra stops at the first mistake, and
`compose` reports all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, OverrideType, QuotedString, RangeSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from paperbench.errors import ConfigError

PRIMARY = "config"
_HOME = re.compile(r"~[^\s\"',\[\]{}()]*")
"""A path in somebody's home folder, which Hydra's grammar wants quoted."""


def _case(*given: Any) -> Any:
    """`${case:${oc.select:KEY},{A:1,B:2},0}` in a file: a default that depends on the value of another key, which need not be a
    group. It stays live: the command line's KEY decides."""
    if len(given) != 3 or not isinstance(given[1], Mapping):
        raise ValueError("case takes a value, the cases and what holds otherwise: ${case:${oc.select:KEY},{A:1,B:2},0}")
    value, cases, otherwise = given
    return cases.get(value, otherwise)


OmegaConf.register_new_resolver("case", _case, replace=True)


@dataclass(frozen=True, kw_only=True)
class Override:
    """One override as written: `key=value`, `+key=value`, `++key=value` or `~key`."""

    text: str
    key: str
    value: Any
    raw: str
    """What stands after the `=`, unparsed."""
    package: str | None = None
    deletes: bool = False
    sweeps: bool = False
    quoted: bool = False


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What Hydra made of the files: values, group choices, and the files read as (package, path), weakest first."""

    config: DictConfig
    choices: dict[str, str | None]
    files: tuple[tuple[str, str], ...]


def parse(text: str) -> Override:
    """Reads one override with Hydra's grammar; `ConfigError` with the remedy if it is none."""
    key, equals, raw = text.partition("=")
    if not text.startswith("~"):
        if not equals:
            raise ConfigError(f"{text}: not an override; write KEY=VALUE, such as {text}=…")
        if not key.strip("+ "):
            raise ConfigError(f"{text}: no key before the =; write KEY=VALUE")
    try:
        parsed = OverridesParser.create().parse_override(f'{key}="{raw}"' if _HOME.fullmatch(raw) else text)
        sweeps = parsed.is_sweep_override()
        value = None if sweeps else parsed.value()
    except HydraException:
        quoted = raw.replace("'", "").replace('"', "")
        raise ConfigError(
            f"{text}: cannot be read. A value with spaces, commas, brackets or quotes is quoted twice: '{key}=\"{quoted}\"'"
        ) from None
    return Override(
        text=text,
        key=parsed.key_or_group,
        value=value,
        raw=raw.strip(),
        package=parsed.package,
        deletes=parsed.type is OverrideType.DEL,
        sweeps=sweeps,
        quoted=isinstance(parsed._value, QuotedString) and not _HOME.fullmatch(raw),
    )


def alternatives(text: str, names: Callable[[str], Iterable[str]], *, most: int) -> list[str]:
    """The values, each as it would be typed, that an override which `parse` calls a sweep stands for; `most` of them at most.

    `names` gives the choices of a group, for `group=glob(…)`. Raises `ConfigError` if they cannot be listed, or are none.
    """
    parsed = OverridesParser.create().parse_override(text)
    value = parsed.value()
    if isinstance(value, IntervalSweep):
        raise ConfigError(f"{text}: an interval has no steps; write range(START,STOP,STEP)")
    try:
        if isinstance(value, Glob):
            found = value.filter(sorted(names(parsed.key_or_group)))
        elif isinstance(value, RangeSweep) and not value.shuffle:
            found = [str(number) for number in islice(_range(value), most)]
        else:
            found = list(islice(parsed.sweep_string_iterator(), most))
    except (HydraException, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{text}: cannot be counted through: {_first_paragraph(error)}") from None
    if not found:
        raise ConfigError(f"{text}: stands for no value at all")
    return found


def _range(sweep: RangeSweep) -> Iterable[int | float]:
    """The numbers of a range as a person counts them: `range(0.1,0.4,0.1)` is 0.1, 0.2 and 0.3, where sums of binary fractions
    would give 0.30000000000000004, another run than that of 0.3, and 0.4."""
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None
    assert stop is not None
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return range(start, stop, step)
    first, last, stride = (Decimal(repr(number)) for number in (start, stop, step))
    if stride == 0:
        raise ValueError("its step is 0")
    return (float(first + i * stride) for i in range(math.ceil((last - first) / stride)))


@contextmanager
def _folders(folders: Sequence[Path]) -> Iterator[None]:
    """Hydra set up to look in `folders`, the first one first; whatever Hydra held before is put back."""
    before = GlobalHydra.instance().hydra
    version.setbase("1.3")
    path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        # Hydra's own last entry, of structured configs, must stay last. `hydra.searchpath` will not do here: with it
        # the primary config is looked for in the first folder alone.
        path.prepend(provider="paperbench", path=f"file://{folder}", anchor="schema")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2(task_name="paperbench", config_search_path=path)
        yield
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"the configuration cannot be composed: {_first_paragraph(cause)}") from error
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def _first_paragraph(error: BaseException) -> str:
    return " ".join(str(error).partition("\n\n")[0].split())


_MERGED: ContextVar[dict[Any, Merged] | None] = ContextVar("merged", default=None)


@contextmanager
def remembered() -> Iterator[None]:
    """While it is open, files are merged once for each set of choices: of many runs most differ in values alone.

    One within another shares its memory.
    """
    memory = _MERGED.get()
    token = _MERGED.set({} if memory is None else memory)
    try:
        yield
    finally:
        _MERGED.reset(token)


def merge(folders: Sequence[Path], choices: Mapping[str, str]) -> Merged:
    """Composes the primary config with these group choices (`experiment` is one)."""
    memory = _MERGED.get()
    if memory is None:
        return _merge(folders, choices)
    asked = (*folders, *choices.items())
    if asked not in memory:
        memory[asked] = _merge(folders, choices)
    return memory[asked]


def _merge(folders: Sequence[Path], choices: Mapping[str, str]) -> Merged:
    overrides = [f"{group}={_quote(name)}" for group, name in choices.items()]
    with _folders(folders):
        config = hydra_compose(PRIMARY, overrides=overrides, return_hydra_config=True)
        known = dict(config.hydra.runtime.choices)
        loader = GlobalHydra.instance().config_loader()
        listed = loader.compute_defaults_list(PRIMARY, overrides=overrides, run_mode=RunMode.RUN).defaults
        with open_dict(config):
            del config["hydra"]
    return Merged(
        config=config,
        choices={str(group): name for group, name in known.items() if "@" not in str(group) and "/" not in str(group)},
        files=tuple(
            (d.package or "", d.config_path) for d in listed if d.config_path and not d.config_path.startswith("hydra")
        ),
    )


def load(folders: Sequence[Path], config_path: str) -> DictConfig:
    """One file of a group, such as `data/voc`, at its place: `{data: {…}}`."""
    with _folders(folders):
        return hydra_compose(config_path)


def _quote(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").replace("/", "").isalnum() else f'"{name}"'
