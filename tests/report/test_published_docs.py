"""The examples of `docs/published.md` are files that are read and code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from paperbench.config.yamlfile import read_yaml
from paperbench.report.published import read
from paperbench.report.published_form import PaperForm

TEXT = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stn.yaml"
    path.write_text(blocks("yaml")[0])

    ours, other = read(path)[:2], read(path)[2]
    assert [(entry.metric, entry.when["model.name"]) for entry in ours] == [("test/error", "st-cnn")] * 2
    assert (other.tolerance, bool(other.unreproduced)) == (None, True)


def test_the_example_of_statements_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stn.yaml"
    path.write_text(blocks("yaml")[0] + "\n" + blocks("yaml")[1])
    form = read_yaml(path, PaperForm)
    assert form.deviations[0].when == {"hard_weight": 10.0}
    assert form.choices[0].reason


def test_the_example_of_a_curve_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vae.yaml"
    path.write_text(yaml.safe_dump({"paper": "vae", "source": "s", "tables": yaml.safe_load(blocks("yaml")[2])}))

    assert [(entry.x, entry.value, entry.tolerance) for entry in read(path)] == [
        (1e6, -124.2, 5.0),
        (1e7, -104.8, 2.0),
    ]


def test_the_python_does_what_it_says() -> None:
    code = blocks("python")[0]
    names: dict[str, object] = {"config": {"scale": "short"}}
    exec(code, names)
    for line in code.splitlines():
        if stated := re.search(r"#\s(-?[\d.]+\d)", line):
            assert eval(line, names) == float(stated[1]), line
