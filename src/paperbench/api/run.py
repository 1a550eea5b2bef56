"""Runs as a notebook uses them: configuration, numbers, curves, model and predictions of a folder, shown as tables."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from paperbench.api.notebook import html_table
from paperbench.config.paths import expanded
from paperbench.config.suggest import nearest
from paperbench.engine.prediction import check_options, predict_of
from paperbench.errors import ConfigError, DataError
from paperbench.records.metrics import metrics_of
from paperbench.records.record import RunRecord

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class Config(dict[str, Any]):
    """A configuration: a dict whose keys are attributes too, `config.optim.lr`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({key: Config(v) if isinstance(v, Mapping) else v for key, v in values.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no key {name!r}; it has {', '.join(self)}") from None

    def _repr_html_(self) -> str:
        from paperbench.config.difference import flatten

        return html_table(("key", "value"), flatten(self))


class MissingNameError(KeyError):
    """A name that is not there, with the names that are, in plain text; a `KeyError` would quote its message."""

    def __str__(self) -> str:
        return str(self.args[0])


class History(Mapping[str, "np.ndarray"]):
    """Every number that a run logged: name -> float64 array, in the order in which it was logged.

    `history.steps(name)` is the int64 array of the steps at which that number was logged.
    """

    def __init__(self, series: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
        self._series = series

    def __getitem__(self, name: str) -> np.ndarray:
        import numpy as np

        return np.asarray(self._of(name)[1], np.float64)

    def steps(self, name: str) -> np.ndarray:
        """Return the steps of `history[name]`, an int64 array of the same length."""
        import numpy as np

        return np.asarray(self._of(name)[0], np.int64)

    def _of(self, name: str) -> tuple[Sequence[int], Sequence[float]]:
        if name in self._series:
            return self._series[name]
        near = nearest(str(name), self._series)
        raise MissingNameError(
            f"nothing was logged as {name!r}. {'Nearest' if near else 'There are'}: {', '.join(near or self._series) or 'none'}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        return f"<History of {', '.join(self._series)}>"

    def _repr_html_(self) -> str:
        rows = ((name, len(values), f"{values[-1]:.4g}") for name, (_, values) in self._series.items())
        return html_table(("name", "values", "last"), rows)


class Run:
    """A run in its folder. `train`, `evaluate`, `estimate`, `load` and `runs` return it.

    Files are read when an attribute is first used; `load(run.path)` reads them anew.
    """

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._record.directory

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return self._record.experiment

    @property
    def state(self) -> str:
        """`done`, `running`, `stopped`, `failed`, `waiting`, `interrupted` or `damaged`."""
        return self._record.state

    @property
    def message(self) -> str:
        """The reason why the run failed or stopped; empty for one that is done."""
        return self._record.message

    @cached_property
    def config(self) -> Config:
        """The complete configuration, as a dict with attributes."""
        return Config(self._record.config)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of `results.json` by name; empty before the run is done. docs/metrics.md says what each means."""
        return dict(self._record.metrics)

    @property
    def results(self) -> dict[str, Any]:
        """The content of `results.json`; empty before the run is done."""
        return dict(self._record.results)

    @cached_property
    def history(self) -> History:
        """What was logged during training, as arrays by name."""
        return History(self._record.history)

    @property
    def figures(self) -> list[Path]:
        """The pictures below `figures/`."""
        return self._record.figures()

    @cached_property
    def model(self) -> nn.Module:
        """The trained net on the CPU, in eval mode, without gradients.

        Raises `ConfigError` for a run that trains no net or has no checkpoint yet, and `CheckpointError` for a damaged one.
        """
        from paperbench.config.validate import load_file

        task, config, _ = load_file(self.path / "config.yaml")
        module = importlib.import_module(task.module)
        if not hasattr(module, "load_model"):
            raise ConfigError(f"{self.path}: a run of task {task.name}, which trains no net")
        return module.load_model(config, self.path).requires_grad_(False).eval()

    def predict(self, images: Any, *, output: str | Path | None = None, **options: Any) -> Predictions:
        """Show images to the trained model, as `paperbench predict` does.

        images: one image or a sequence of them; each a path, a PIL image, or a uint8 array (H, W) or (H, W, 3); several also as
        one array (N, H, W, 3). output: folder for one drawn picture per image, by default `figures/predictions` of the run.
        options: what the command takes besides, such as `score_threshold=0.5`, and `skip_damaged=True` for an answer with `error`
        in place of a `DataError` about one image of many. Raises `ConfigError` for an option that the run's task does not have,
        for a run that cannot be shown images, or where a picture would replace something else than an earlier one, and `DataError`
        for what is no image, or none at all.
        """
        from paperbench.config.validate import load_file

        task, config, _ = load_file(self.path / "config.yaml")
        predict = predict_of(task, self.path)
        check_options(predict, options, self.path)
        folder = expanded(output) if output is not None else self.path / "figures" / "predictions"
        with tempfile.TemporaryDirectory(prefix="paperbench-") as scratch:
            files = _image_files(images, Path(scratch))
            answers = predict(config, self.path, files, folder, **options)
        for answer in answers:
            if Path(answer.get("image", "")).is_relative_to(scratch):
                answer["image"] = None  # an array has no file
        return Predictions(answers)

    def _value(self, key: str) -> str:
        """The value of a key or metric in words: as a sweep's command typed it, else as it was resolved or measured."""
        from paperbench.config.difference import ABSENT
        from paperbench.records.selection import value_of

        if key in self._record.labels:
            return self._record.labels[key]
        value = value_of(self._record, key)
        if key in self.metrics:
            return metrics_of(self._record.task).text(key, self.metrics[key])
        return "" if value is ABSENT else str(value)

    def __repr__(self) -> str:
        name, value = self._record.headline
        result = f", {name} {metrics_of(self._record.task).text(name, value)}" if value is not None else ""
        return f"<Run {self.experiment} {self.state}{result}, {self.path}>"

    def _repr_html_(self) -> str:
        registry = metrics_of(self._record.task)
        shown = registry.headlines(self.metrics) or list(self.metrics)
        rows = [(name, registry.text(name, self.metrics[name]), registry[name].meaning) for name in shown]
        return html_table(
            ("metric", "result", "meaning"), rows, caption=f"{self.experiment}: {self.state}, {self.path}"
        )


class Runs(Sequence[Run]):
    """Several runs, shown as a table. `keys` are shown besides each run's first metric."""

    def __init__(self, found: Sequence[Run], keys: Sequence[str] = ()) -> None:
        self._runs = tuple(found)
        self._keys = tuple(keys)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index], self._keys) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"<{len(self)} runs>" if len(self) != 1 else "<1 run>"

    def _repr_html_(self) -> str:
        rows = []
        for run in self._runs:
            name, value = run._record.headline
            result = f"{name} {metrics_of(run._record.task).text(name, value)}" if value is not None else ""
            keys = (run._value(key) for key in self._keys)
            rows.append((run.experiment, run.config.get("scale", ""), run.state, *keys, result, run.path))
        return html_table(("experiment", "scale", "state", *self._keys, "result", "folder"), rows)


class Predictions(list[dict[str, Any]]):
    """What a model made of images: one dict an image, with the drawn `picture`; a notebook shows the pictures."""

    def _repr_html_(self) -> str:
        from base64 import b64encode
        from html import escape

        parts = []
        for answer in self:
            if "error" in answer:
                parts.append(f"<p>{escape(str(answer['error']))}</p>")
                continue
            content = b64encode(Path(answer["picture"]).read_bytes()).decode("ascii")
            label = escape(str(answer.get("label", "")))
            parts.append(
                f"<figure><img src='data:image/png;base64,{content}'><figcaption>{label}</figcaption></figure>"
            )
        return "".join(parts)


def _image_files(images: Any, scratch: Path) -> list[Path]:
    """Every image as a file; arrays and PIL images are written below `scratch`."""
    files = []
    for number, image in enumerate(_each(images)):
        if isinstance(image, str | Path):
            file = expanded(image)
            if file.is_dir():
                raise DataError(f"{image}: a folder; give the image files in it, such as a list of its `Path.glob`")
            if not file.is_file():
                raise DataError(f"{image}: no such image file")
        else:
            file = scratch / f"image-{number}.png"
            _as_picture(image, number).save(file)
        files.append(file)
    if not files:
        raise DataError("no image was given; give a path, a PIL image, a uint8 array, or several of them")
    return files


def _each(images: Any) -> Iterable[Any]:
    """Yield one image after the other, of one, of several, or of an array (N, H, W, 3)."""
    from PIL import Image

    if isinstance(images, str | Path | Image.Image):
        return [images]
    if hasattr(images, "__array__"):
        return images if getattr(images, "ndim", 0) == 4 else [images]
    if isinstance(images, bytes | Mapping) or not isinstance(images, Iterable):
        raise DataError(
            f"images: a {type(images).__name__}; give a path, a PIL image, a uint8 array (H, W) or (H, W, 3), or several of them"
        )
    return images


def _as_picture(image: Any, number: int) -> Any:
    import numpy as np
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not hasattr(image, "__array__"):
        raise DataError(f"image {number}: a {type(image).__name__}; give a path, a PIL image or a uint8 array")
    try:
        array = np.asarray(image)
    except (TypeError, RuntimeError) as error:  # a tensor on a GPU, or one with a gradient
        raise DataError(f"image {number}: cannot be read as an array: {error}") from None
    shape = array.shape
    if array.dtype == np.uint8 and array.size and (array.ndim == 2 or (array.ndim == 3 and shape[2] == 3)):
        return Image.fromarray(array)
    remedy = ""
    if array.ndim == 3 and shape[0] == 3:
        remedy = "; with the channels first, transpose it: `image.transpose(1, 2, 0)`"
    elif array.ndim == 3 and shape[2] == 1:
        remedy = "; of one channel, give `image[:, :, 0]`"
    elif array.ndim == 3 and shape[2] == 4:
        remedy = "; without the fourth channel it is `image[:, :, :3]`"
    elif array.ndim == 3:
        remedy = "; several grey images are a list of arrays (H, W), `list(images)`"
    raise DataError(
        f"image {number}: an array of {array.dtype} with shape {shape}; give uint8 (H, W) or (H, W, 3), values 0 to 255{remedy}"
    )
