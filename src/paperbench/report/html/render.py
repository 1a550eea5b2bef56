"""A page as HTML and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from paperbench import __version__
from paperbench.report.html.charts import Chart, color_class
from paperbench.report.html.page import Block, Charts, Code, Facts, Fold, Notice, Page, Prose, Tiles
from paperbench.report.html.pictures import Gallery
from paperbench.report.tables import Table, plain, to_markdown

GENERATOR = "paperbench report"
"""The generator in the head of a page: only such a page may be overwritten."""


STYLE, SCRIPT = "style.css", "page.js"


def to_html(page: Page, *, made: datetime, generator: str = GENERATOR, assets: str | None = None) -> str:
    """Return one file with pictures inside, and a policy that forbids every request.

    assets: the folder, relative to the page and with its slash, that holds style and script, which are inside where it is None.
    """
    style, script = resource(STYLE), resource(SCRIPT)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            style=Markup(style),  # both are files of this package
            script=Markup(script),
            assets=assets,
            policy=_policy(script, inside=assets is None),
            generator=f"{generator} {__version__}",
            made=made.isoformat(sep=" ", timespec="minutes"),
            color_class=color_class,
        )
    )


def _policy(script: str, *, inside: bool) -> str:
    """Return what a page may load: nothing but its own pictures and, where they are files, its style and its script."""
    # A browser may take two files of one folder for two places: `file:` allows what lies on the disk.
    style, code = (
        ("'unsafe-inline'", f"'{_sha256(script)}'") if inside else ("'self' file: 'unsafe-inline'", "'self' file:")
    )
    return (
        f"default-src 'none'; img-src data:; style-src {style}; script-src {code}; base-uri 'none'; form-action 'none'"
    )


def is_made_by(generator: str, html: Path) -> bool:
    """Return True for a page whose head names this generator."""
    try:
        with html.open("rb") as file:
            return f'name="generator" content="{generator}'.encode() in file.read(2048)
    except OSError:
        return False


_JOINTS = re.compile(r"(?<=\w)([/_.])(?=\w)")


@cache
def _environment() -> Environment:
    """Return the environment of the templates. Autoescape is always on: names and messages come from files of anybody."""
    environment = Environment(
        loader=PackageLoader("paperbench.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Return a name with possible line breaks after its slashes, underscores and dots."""
    return Markup(_JOINTS.sub(r"\1<wbr>", str(escape(text))))


@cache
def resource(name: str) -> str:
    """Return the text of a file beside the templates."""
    return (resources.files("paperbench.report.html") / "templates" / name).read_text(encoding="utf-8").strip()


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode(errors='backslashreplace')).digest()).decode()}"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def to_document(page: Page, *, html: str, made: datetime) -> str:
    """Return the same tables, facts and remarks as Markdown; it refers to `html` for curves and pictures."""
    lines = [f"<!-- {GENERATOR} {__version__} -->", f"# {plain(page.title)}", ""]
    lines += [plain(page.lead), ""] if page.lead else []
    lines += [f"* {fact.name}: {_shown(fact.text, code=fact.code)}" for fact in page.facts]
    lines += [f"* state: {', '.join(badge.text for badge in page.badges)}", ""]
    for section in page.sections:
        body = [line for block in section.blocks for line in _markdown(block, html)]
        lines += [f"## {plain(section.title)}", "", *body]
    lines += [f"Made {made.isoformat(sep=' ', timespec='minutes')} by paperbench {__version__}.", ""]
    return "\n".join(lines)


def _markdown(block: Block, html: str) -> Iterator[str]:
    if isinstance(block, Table):
        yield to_markdown(block, level=3)
    elif isinstance(block, Tiles):
        return  # the same numbers stand in the table below them
    elif isinstance(block, Facts):
        yield from (f"* {fact.name}: {_shown(fact.text, code=fact.code)}" for fact in block.facts)
        yield ""
    elif isinstance(block, Notice):
        yield f"> {plain(block.text)}"
        yield from (f"> * {plain(point)}" for point in block.points)
        yield ""
    elif isinstance(block, Prose):
        yield f"{plain(block.text)}\n"
    elif isinstance(block, Code):
        yield _fenced(block.text)
    elif isinstance(block, Fold):
        yield f"{plain(block.summary)}:\n"
        for inner in block.blocks:
            yield from _markdown(inner, html)
    elif isinstance(block, Charts):
        yield f"{plain(', '.join(_names(block)))}: drawn in {html}\n"
    elif isinstance(block, Gallery):
        yield from (f"* {plain(picture.caption)}: {_shown(picture.source, code=True)}" for picture in block.pictures)
        yield ""


def _names(block: Charts) -> list[str]:
    return [
        f"{chart.title} over {chart.x_label}" if isinstance(chart, Chart) else chart.title for chart in block.charts
    ]


def _shown(text: str, *, code: bool) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`" if code else plain(text)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}\n"
