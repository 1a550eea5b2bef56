"""A place to type the documents' commands in: tiny data sets, pictures, and a real run for every `RUN`.

What stands for something in a document, and what is put in its place:

=============  =========================================================================================================
`RUN`          a finished smoke run of the experiment that the command names, or that the comment above the block does
               (`<!-- run: EXPERIMENT OVERRIDE… -->`); else of faster-rcnn
`OTHER`        another one of the same experiment, with another seed
`SWEEP`        the folder of a sweep over both
`DIR`          a folder that holds every data set the program reads, some images each
`IMAGE.jpg`    a image
`=FILE.pth`    a file, whatever its name; `=FILE.csv` what its key takes
`EXPERIMENT`   faster-rcnn
`PHOTOS`       a folder of classes, with `train` and `test`; `WILD` pictures without classes
`ARCHIVE`      an nnU-Net archive
`TEACHER.pth`  the state dict of a net of torchvision for the classes of `PHOTOS`; `.pt` as TorchScript, `.onnx` a graph
=============  =========================================================================================================

Of `RUN|SWEEP` the first is taken; what stands in brackets, and a trailing ellipsis, are dropped. `train` and the like are given
`--dry-run` (everything is composed and checked, data are looked for, nothing is trained: each experiment's training has its own
test); the other commands do what they do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paperbench.catalog import TASKS
from paperbench.cli.app import app
from paperbench.config.compose import compose
from tests.cli.recorded import record_sweep
from tests.data import files
from tests.data.photos import CLASSES, write_classes, write_splits
from tests.data.test_cub import write_cub
from tests.data.test_mnist import write_mnist
from tests.data.test_svhn import HOUSES, write_svhn
from tests.distill.teacher_files import write_teachers
from tests.docs.documents import Command
from tests.rca import made as segmentations
from tests.rca.segmenters.made import labelled_sets
from tests.rca.test_nnunet import archive

DRY = ("train", "estimate", "proposals", "sweep", "reproduce")
"""Commands that are only looked at."""

DEFAULT_EXPERIMENT = "faster-rcnn"


_ALTERNATIVES = re.compile(r"[A-Z_]+(\|[A-Z_]+)+")


class Workspace:
    """A folder with everything that documents refer to. Runs are made when they are first asked for, once each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[tuple[str, ...], Path] = {}

    def folder_of(self, document: str) -> Path:
        """Where the commands of a document are typed and its files lie."""
        folder = self.folder / document.replace("/", "-").removesuffix(".md")
        folder.mkdir(exist_ok=True)
        return folder

    # --- commands -----------------------------------------------------------------------------------------------------

    def run(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> Result:
        """Does what the command says, in a folder that the document's commands share."""
        here = self.folder_of(command.document)
        if not (here / "data").exists():
            (here / "data").symlink_to(self.data)
        monkeypatch.delenv("PAPERBENCH_DATA", raising=False)
        for name, value in command.variables:
            monkeypatch.setenv(name, self._replaced(value, ()))
        words = self.words(command)
        monkeypatch.chdir(here)
        return CliRunner().invoke(app, words)

    def words(self, command: Command) -> list[str]:
        """The arguments of `paperbench`, with real things in the places of those that stand for something."""
        words = arguments_of(command)
        source = self._source(command, words)
        by_yolo = {"gt": self.data, "dt": self.text_detections} if "format=yolo" in words else {}
        replaced = [
            f"{key}={by_yolo[key]}" if (key := word.partition("=")[0]) in by_yolo else self._replaced(word, source)
            for word in _without_optional(words)
        ]
        if words and words[0] in DRY and "--dry-run" not in words and "--smoke" not in words:
            replaced.append("--dry-run")
        return replaced

    def _source(self, command: Command, words: Sequence[str]) -> tuple[str, ...]:
        """Experiment and overrides of the run that `RUN` means."""
        kind, _, text = command.note.partition(":")
        if kind.strip() == "run":
            return tuple(self._replaced(word, ()) for word in text.split())
        if len(words) > 1 and words[0] == "eval":
            return (words[1],)
        return (DEFAULT_EXPERIMENT,)

    def _replaced(self, word: str, source: tuple[str, ...]) -> str:
        key, equals, value = word.partition("=")
        name = (value if equals else word).removesuffix("…")
        name = name.partition("|")[0] if _ALTERNATIVES.fullmatch(name) else name
        makers: dict[str, Callable[[], object]] = {
            "RUN": lambda: self.finished(source),
            "RUN_DIR": lambda: self.finished(source),
            "OTHER": lambda: self.finished((*source, "seed=1")),
            "SWEEP": lambda: self.sweep(source),
            "EXPERIMENT": lambda: DEFAULT_EXPERIMENT,
            "PHOTOS": lambda: self.photos,
            "WILD": lambda: self.wild,
            "ARCHIVE": lambda: self.archive,
            "TEACHER.pth": lambda: self.teachers / "teacher.pth",
            "TEACHER.pt": lambda: self.teachers / "teacher.pt",
            "TEACHER.onnx": lambda: self.teachers / "teacher.onnx",
        }
        if name in makers:
            name = str(makers[name]())
        elif name in ("DIR", "../data"):
            name = str({"gt": self.devkit, "dt": self.detections, **self.segmentations}.get(key, self.data))
        elif name.endswith(".csv") and key in self.segmentations:
            name = str(self.segmentations[key])
        elif name.startswith("IMAGE"):
            name = str(self.image)
        elif equals and Path(name).suffix in (".pth", ".pt") and "/" not in name:
            name = str(self.file)
        return f"{key}={name}" if equals else name

    # --- things -------------------------------------------------------------------------------------------------------

    def finished(self, source: tuple[str, ...]) -> Path:
        """The folder of a smoke run of (experiment, override, …)."""
        if source not in self._runs:
            experiment, *overrides = source
            verb = TASKS[compose(experiment, overrides).task.name].verb
            folder = self.folder / "runs" / "-".join(word.replace("/", "_") for word in source)
            result = CliRunner().invoke(app, [verb, experiment, *overrides, "--smoke", "--run-dir", str(folder)])
            assert result.exit_code == 0, result.output
            self._runs[source] = folder
        return self._runs[source]

    def sweep(self, source: tuple[str, ...]) -> Path:
        """A sweep over `RUN` and `OTHER`."""
        folder = self.folder / "sweeps" / "-".join(source)
        if not folder.exists():
            record_sweep(folder, [self.finished(source), self.finished((*source, "seed=1"))], source[0])
        return folder

    @cached_property
    def data(self) -> Path:
        """One folder with every data set, all with the same few images of noise."""
        root = self.folder / "sets"
        for year, split, name in (
            ("2007", "trainval", "cat"),
            ("2007", "test", "dog"),
            ("2012", "trainval", "cat"),
            ("2012", "val", "dog"),
            ("mine", "trainval", "cat"),
            ("mine", "test", "dog"),
        ):
            xml = files.voc_xml(files.voc_object(name, (5, 5, 30, 30)))
            files.write_voc(root, {f"{split}-{k}": xml for k in range(2)}, year=year, split=split)
        for split in ("train2017", "val2017"):
            content = files.coco_content(
                [{"image_id": 10, "category_id": 3, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}]
            )
            files.write_coco(root, content, split=split)
        own = root / "mine"
        for k in range(3):
            files.write_image(own / "photos" / f"{10 + k:012d}.jpg", seed=k)
        (own / "labels.json").write_text(json.dumps(content), encoding="utf-8")
        for folder in (root, root / "more"):
            for split in ("train", "val"):
                labels: dict[str, str | None] = {f"{split}-{k}": f"{k} 0.5 0.5 0.5 0.5\n" for k in range(2)}
                files.write_yolo(folder, labels, split=split, names=("cat", "dog"))
        files.write_pennfudan(root, {f"FudanPed{k:05d}": [(10, 5, 30, 30)] for k in range(1, 61)})
        write_mnist(root)
        files.write_frey(root)
        write_cub(root)
        for split in ("train", "extra", "test"):
            write_svhn(root, HOUSES, split=split)
        labelled_sets(root, 120)
        return root

    @property
    def devkit(self) -> Path:
        return self.data / "VOCdevkit" / "VOC2012"

    @cached_property
    def detections(self) -> Path:
        """The devkit's result file for the objects of VOC 2012's `val`."""
        folder = self.folder / "detections"
        folder.mkdir()
        (folder / "comp4_det_val_dog.txt").write_text("val-0 0.9 5 5 30 30\nval-1 0.8 5 5 30 30\n", encoding="utf-8")
        return folder

    @cached_property
    def text_detections(self) -> Path:
        """Text files for the images of the YOLO layout."""
        folder = self.folder / "found"
        folder.mkdir()
        (folder / "val-0.txt").write_text("0 0.5 0.5 0.5 0.5 0.9\n", encoding="utf-8")
        return folder

    @cached_property
    def segmentations(self) -> dict[str, Path]:
        """Pictures, masks, references, a manifest and files of scores, by the keys that name them."""
        root = self.folder / "segmentations"
        words = segmentations.folders(root)
        places = {key: Path(value) for key, _, value in (word.partition("=") for word in words) if "root" not in key}
        places = {key: path for key, path in places.items() if path.is_dir()} | {"truth": root / "truth"}
        places["manifest"] = root / "list.csv"
        lines = ["role,case,image,segmenter,mask,truth"]
        lines += [f"reference,r{k},ref-images/r{k}.png,,,ref-masks/r{k}.png" for k in range(3)]
        lines += [f"case,c{k},images/c{k}.png,,masks/c{k}.png," for k in range(2)]
        places["manifest"].write_text("\n".join(lines) + "\n", encoding="utf-8")
        for key, case in (("scores", "a"), ("calibration", "b")):
            places[key] = root / f"{key}.csv"
            places[key].write_text(f"case,label,reference,score,truth\n{case},x,r,0.5,0.6\n", encoding="utf-8")
        return places

    @cached_property
    def photos(self) -> Path:
        return write_splits(self.folder / "photos")

    @cached_property
    def wild(self) -> Path:
        return write_classes(self.folder / "wild", each=2, first=2000)

    @cached_property
    def archive(self) -> Path:
        return archive(self.folder / "archive")

    @cached_property
    def teachers(self) -> Path:
        folder = self.folder / "teachers"
        folder.mkdir()
        write_teachers(folder, side=32, classes=len(CLASSES))
        return folder

    @cached_property
    def image(self) -> Path:
        return files.write_image(self.folder / "image.png", 96, 96)

    @cached_property
    def file(self) -> Path:
        path = self.folder / "weights.pth"
        path.write_bytes(os.urandom(16))
        return path


def _without_optional(words: Sequence[str]) -> Iterator[str]:
    """The words outside `[…]`, which may reach over several; `key=[a,b]` is a value and stays."""
    inside = False
    for word in words:
        inside = inside or word.startswith("[")
        if not inside:
            yield word
        inside = inside and not word.removesuffix("…").endswith("]")


def arguments_of(command: Command) -> list[str]:
    """What follows `paperbench` in a command that calls it, by whichever way; empty for any other command."""
    for start in (("paperbench",), ("uv", "run", "paperbench"), ("python", "-m", "paperbench")):
        if command.words[: len(start)] == start:
            return list(command.words[len(start) :]) or ["--help"]
    return []
