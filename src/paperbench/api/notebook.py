"""How results and progress show themselves in a notebook. Imports IPython only inside one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

SECONDS_BETWEEN_UPDATES = 0.5


def inside_notebook() -> bool:
    """Return whether this process is the kernel of a notebook: Jupyter, Colab, an editor with cells."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return an HTML table; texts are escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class NotebookReporter:
    """Progress of a run in one output cell, which is rewritten in place; implements `engine.reporter.Reporter`.

    `show(html)` puts the first content into the cell and returns a function that replaces it (default: IPython's display).
    """

    def __init__(
        self,
        show: Callable[[str], Callable[[str], None]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show or _display
        self._clock = clock
        self._replace: Callable[[str], None] | None = None
        self._title = ""
        self._facts: dict[str, str] = {}
        self._phases: dict[str, tuple[int, int, dict[str, float]]] = {}
        self._messages: list[str] = []
        self._updated = -SECONDS_BETWEEN_UPDATES

    def start(self, title: str, facts: Mapping[str, str]) -> None:
        self._title, self._facts = title, dict(facts)
        self._update(force=True)

    def message(self, text: str) -> None:
        self._messages.append(text)
        self._update(force=True)

    def progress(self, phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._phases[phase] = (done, total, dict(values))
        self._update(force=done >= total)

    def finish(self, results: Mapping[str, Any], directory: str) -> None:
        """The run that is returned shows its results itself."""

    def close(self) -> None:
        if self._title:
            self._update(force=True)

    def _update(self, *, force: bool) -> None:
        now = self._clock()
        if not force and now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        content = self._content()
        if self._replace is None:
            self._replace = self._show(content)
        else:
            self._replace(content)

    def _content(self) -> str:
        facts = "".join(f"<div><i>{escape(key)}</i> {escape(text)}</div>" for key, text in self._facts.items())
        bars = "".join(
            f"<div>{escape(name)} <progress value='{done}' max='{max(total, 1)}'></progress> {done}/{total} "
            + escape(", ".join(f"{key} {value:.4g}" for key, value in values.items()))
            + "</div>"
            for name, (done, total, values) in self._phases.items()
        )
        messages = "".join(f"<div>{escape(text)}</div>" for text in self._messages)
        return f"<div><b>{escape(self._title)}</b>{facts}{messages}{bars}</div>"


def _display(content: str) -> Callable[[str], None]:
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

    handle = display(HTML(content), display_id=True)
    return lambda text: handle.update(HTML(text))
