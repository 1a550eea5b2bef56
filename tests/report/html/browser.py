"""Chromium from the system, without a window. Where there is none, tests that need it are skipped with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VARIABLE = "PAPERBENCH_CHROMIUM"
"""Names another program than the first of those on the path."""


def executable() -> str:
    """Chromium's program; skips the test where there is none."""
    found = os.environ.get(VARIABLE) or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)} and ${VARIABLE})")
    return found


@dataclass
class Visit:
    """A page that was opened, with what went wrong and what was asked of the network since."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self, width: int) -> int:
        """By how many pixels the page is wider than a window of that width."""
        self.page.set_viewport_size({"width": width, "height": 900})
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def column(self, table: str, name: str) -> list[str]:
        """The exact values of a column, from top to bottom."""
        return self.page.evaluate(
            """([table, name]) => {
                const found = document.querySelector(`table[data-table="${table}"]`);
                const column = [...found.tHead.rows[0].cells].findIndex((cell) => cell.dataset.name === name);
                return [...found.tBodies[0].rows].map((row) => row.cells[column].dataset.value);
            }""",
            [table, name],
        )

    def heading(self, table: str, name: str) -> Any:
        return self.page.locator(f'table[data-table="{table}"] th[data-name="{name}"]')

    def colour(self, selector: str, property_: str = "color") -> tuple[float, ...]:
        """A computed colour as the channels of sRGB, 0 to 255, and what shows through."""
        return tuple(
            self.page.evaluate(
                """([selector, property]) => {
                    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
                    canvas.fillStyle = getComputedStyle(document.querySelector(selector))[property];
                    canvas.fillRect(0, 0, 1, 1);
                    return [...canvas.getImageData(0, 0, 1, 1).data];
                }""",
                [selector, property_],
            )
        )


class Browser:
    """One Chromium for several visits."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def visit(
        self,
        html: Path,
        *,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
        script: bool = True,
        beside: Path | None = None,
    ) -> Iterator[Visit]:
        """Opens a page from disk; by the end it must not have asked for anything else, but for files below `beside`."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        page = context.new_page()
        visit = Visit(page)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on(
            "console",
            lambda message: visit.errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("request", lambda request: visit.requests.append(request.url))
        page.goto(html.resolve().as_uri(), wait_until="load")
        try:
            yield visit
            assert visit.errors == []
            first, *others = [url for url in visit.requests if not url.startswith("data:")]
            allowed = f"{beside.resolve().as_uri()}/" if beside else None
            assert first == html.resolve().as_uri()
            assert [url for url in others if allowed is None or not url.startswith(allowed)] == []
        finally:
            context.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium that ends with the block."""
    program = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=program,
            # As root, as in most containers, Chromium refuses to start with its sandbox.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield Browser(launched)
        finally:
            launched.close()
