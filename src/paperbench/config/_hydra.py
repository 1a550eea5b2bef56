"""The one module that imports Hydra: its override grammar and its composition of files, nothing else of it.

`hydra.main` is not used (it re-reads `sys.argv`), nor is Hydra's merging of values: Hydra stops at the first mistake, and
`compose` reports all of them. The two steps of its composition are called one by one (defaults list, then the merging of files),
since `hydra.compose` takes ten times as long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy, deepcopy
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, OverrideType, QuotedString, RangeSweep
from hydra.core.override_parser.types import Override as ParsedOverride
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from paperbench.config.paths import find
from paperbench.config.quoting import in_quotes, quoted
from paperbench.errors import ConfigError

PRIMARY = "config"
_HOME = re.compile(r"~[^\s\"',\[\]{}()]*")
"""A path in somebody's home folder, which Hydra's grammar wants quoted."""
_ATOM = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,\[\]"'{}()]+""")
"""A value between commas and brackets, with the quotes around it if there are any."""
_UNQUOTED = re.compile(r"[\w\s./\\+$%*@?|:-]*", re.ASCII)
"""What Hydra's grammar takes without quotes."""


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
    takes_presets: bool = True
    """False for a primary config of a user's own without the entry `preset@_global_`."""


def parse(text: str) -> Override:
    """Reads one override with Hydra's grammar; `ConfigError` with the remedy if it is none."""
    key, equals, raw = text.partition("=")
    if not text.startswith("~"):
        if not equals:
            raise ConfigError(f"{text}: not an override; write KEY=VALUE, such as {text}=…")
        if not key.strip("+ "):
            raise ConfigError(f"{text}: no key before the =; write KEY=VALUE")
    try:
        parsed = _parsed(f'{key}="{raw}"' if _HOME.fullmatch(raw) else text)
        sweeps = parsed.is_sweep_override()
        value = None if sweeps else parsed.value()
    except HydraException:
        remedy = quoted(f"{key}={_remedy(raw.strip())}")
        raise ConfigError(
            f"{text}: cannot be read. A value with spaces, commas, brackets or quotes is quoted twice: {remedy}"
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


def _parsed(text: str) -> ParsedOverride:
    """Read an override; where Hydra cannot, once more with quotes around each value that has letters or signs beyond its grammar,
    such as `[café,C#]`. Raises `HydraException`."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        key, equals, raw = text.partition("=")
        plain = f"{key}{equals}{_ATOM.sub(_in_quotes, raw)}"
        if plain == text or "{" in raw:
            raise
        return OverridesParser.create().parse_override(plain)


def _in_quotes(atom: re.Match[str]) -> str:
    text = atom[0].strip()
    return atom[0] if text[:1] in ('"', "'", "") or _UNQUOTED.fullmatch(text) else in_quotes(text, chr(34))


def _remedy(raw: str) -> str:
    """The value in quotes; of a list each element, since quotes around a list make it text."""
    if raw[:1] == "[" and raw[-1:] == "]":
        return f"[{','.join(in_quotes(_bare(part.strip()), chr(34)) for part in raw[1:-1].split(','))}]"
    return in_quotes(_bare(raw), chr(34))


def _bare(raw: str) -> str:
    """The text between quotes, where there is a pair of them around it."""
    return raw[1:-1] if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"" else raw


def alternatives(text: str, names: Callable[[str], Iterable[str]], *, most: int) -> list[str]:
    """The values, each as it would be typed, that an override which `parse` calls a sweep stands for; `most` of them at most.

    `names` gives the choices of a group, for `group=glob(…)`. Raises `ConfigError` if they cannot be listed, or are none.
    """
    parsed = _parsed(text)
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


class _Files(ConfigRepository):
    """Hydra's reader of files that remembers what it has parsed, for as long as a file is the same."""

    def __init__(self, folders: Sequence[Path]) -> None:
        version.setbase("1.3")
        Plugins.instance()
        path = create_config_search_path(str(folders[0]))
        for folder in folders[1:]:
            # Hydra's own last entry, of structured configs, must stay last.
            path.prepend(provider="paperbench", path=f"file://{folder}", anchor="schema")
        super().__init__(path)
        self._folders = folders
        self._parsed: dict[str, tuple[object, ConfigResult | None]] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        file = find(config_path, self._folders)
        state = file.stat() if file else None
        stamp = (file, state.st_mtime_ns, state.st_size) if state else None
        if config_path not in self._parsed or self._parsed[config_path][0] != stamp:
            self._parsed[config_path] = (stamp, super().load_config(config_path))
        result = copy(self._parsed[config_path][1])
        if result is not None:
            result.config = deepcopy(result.config)  # composition writes to it
        return result


class _Reader(CachingConfigRepository):
    """Hydra's memory of one composition. Its own constructor copies the files with all that they have parsed, which takes as
    long as composing."""

    def __init__(self, files: _Files) -> None:
        self.delegate = files
        self.cache = {}


@lru_cache(maxsize=8)
def _files(folders: tuple[Path, ...]) -> _Files:
    return _Files(folders)


def _compose(folders: Sequence[Path], primary: str, overrides: Sequence[str]) -> tuple[DictConfig, DefaultsList]:
    """Hydra's composition of the files that `primary` and the overrides of groups name, without its own `hydra` section."""
    try:
        files = _files(tuple(folders))
        # One reader for both steps, and files parsed once: `hydra.compose` reads all of them twice, and Hydra's own besides.
        once = _Reader(files)
        chosen = OverridesParser.create().parse_overrides(list(overrides))
        listed = create_defaults_list(
            repo=once, config_name=primary, overrides_list=chosen, prepend_hydra=False, skip_missing=False
        )
        composer = ConfigLoaderImpl(config_search_path=ConfigSearchPathImpl())
        return composer._compose_config_from_defaults_list(defaults=listed.defaults, repo=once), listed
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"the configuration cannot be composed: {_first_paragraph(cause)}") from error
    except (ValueError, RecursionError) as error:  # a number or date that is none
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from None


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


def merge(folders: Sequence[Path], choices: Mapping[str, str], presets: Sequence[str] = ()) -> Merged:
    """Composes the primary config with these group choices (`experiment` is one), and these files of the group `preset`."""
    memory = _MERGED.get()
    if memory is None:
        return _merge(folders, choices, presets)
    asked = (*folders, *choices.items(), *presets)
    if asked not in memory:
        memory[asked] = _merge(folders, choices, presets)
    return memory[asked]


def _merge(folders: Sequence[Path], choices: Mapping[str, str], presets: Sequence[str]) -> Merged:
    overrides = [f"{group}={_quote(name)}" for group, name in choices.items()]
    if presets:
        overrides.append(f"preset@_global_=[{','.join(map(_quote, presets))}]")
    config, listed = _compose(folders, PRIMARY, overrides)
    known = listed.overrides.known_choices
    return Merged(
        config=config,
        choices={str(group): name for group, name in known.items() if "@" not in str(group) and "/" not in str(group)},
        files=tuple((d.package or "", d.config_path) for d in listed.defaults if d.config_path),
        takes_presets=any(getattr(entry, "group", "") == "preset" for entry in _primary_defaults(folders)),
    )


def _primary_defaults(folders: Sequence[Path]) -> Sequence[Any]:
    primary = _files(tuple(folders)).load_config(PRIMARY)
    return (primary.defaults_list or ()) if primary is not None else ()


def load(folders: Sequence[Path], config_path: str) -> DictConfig:
    """One file of a group, such as `data/voc`, at its place: `{data: {…}}`."""
    return _compose(folders, config_path, ())[0]


def _quote(name: str) -> str:
    """Return the name in quotes, without which Hydra reads `12`, `true` and `null` as values of other types."""
    return f'"{name}"'
