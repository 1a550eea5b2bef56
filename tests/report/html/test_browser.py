"""Reports in Chromium: they open from disk without an error or a request, sort, turn dark, and fit every screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from paperbench.engine.rundir import FAILED
from paperbench.report.html.charts import COLORS
from paperbench.report.html.writing import write_report
from tests.report.html import made
from tests.report.html.browser import Browser, chromium

KINDS = ("run", "failed", "sweep", "reproduction", "hostile")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each kind; one is made of names that try to be markup, and long ones at that."""
    root = tmp_path_factory.mktemp("reports")
    pictures = [("detections.png", 900), ("digits.png", 28)]
    long = made.HOSTILE + "x" * 90
    grid = [{"lr": lr, "seed": seed} for lr in (0.5, 10.0, 9.0) for seed in (0, 1)]
    cells = {
        f"row {row}": {name: made.cell([50.0 + row, 52.0 + row], 51.7 + row) for name in ("R", "RTS", "P", "E")}
        for row in range(5)
    }
    sources = {
        "run": made.run(root / "run", pictures=pictures, steps=400),
        "failed": made.run(root / "failed", state=FAILED, message="error: " + "long " * 60, logged=20),
        "sweep": made.sweep(root, grid, pictures=pictures[:1]),
        "reproduction": made.reproduction(root / "reproduction", ["R", "RTS", "P", "E"], cells),
        "hostile": made.run(
            root / "hostile",
            resolved=made.config(experiment=long, model={"name": long}),
            values={long: 1.0, "train/loss": 2.0},
            message=long,
            data=long,
            hostile=True,
        ),
    }
    return {
        name: write_report(source, root / "out" / name, metrics=made.METRICS).html for name, source in sources.items()
    }


WIDTHS = (320, 390, 768, 1600)


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_without_error_or_request_and_nothing_overflows(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    with browser.visit(pages[kind]) as visit:
        assert visit.page.locator("h1").is_visible()
        assert {width: visit.overflow(width) for width in WIDTHS} == dict.fromkeys(WIDTHS, 0)
        # Opened folds hold wide things too.
        visit.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        assert {width: visit.overflow(width) for width in WIDTHS} == dict.fromkeys(WIDTHS, 0)
        broken = "[...document.images].filter((image) => image.src && !image.naturalWidth).length"
        assert visit.page.evaluate(broken) == 0
        assert visit.page.evaluate("window.stolen === undefined")


def test_a_page_that_is_too_wide_would_be_found(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["run"]) as visit:
        visit.page.evaluate("document.querySelector('main').style.minWidth = '50rem'")
        assert visit.overflow(390) > 300


def test_without_a_script_everything_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["run"], script=False) as visit:
        assert visit.page.locator("table").first.is_visible()
        assert visit.page.locator(".hover-targets title", has_text="step 400: train/loss ").count() == 1


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_every_number_shown_is_that_of_the_results(browser: Browser, pages: dict[str, Path]) -> None:
    results = json.loads((pages["run"].parents[2] / "run/results.json").read_text())["metrics"]
    with browser.visit(pages["run"]) as visit:
        found = dict(zip(visit.column("metrics", "metric"), visit.column("metrics", "value"), strict=True))
        classes = dict(zip(visit.column("classes", "class"), visit.column("classes", "toy/AP"), strict=True))

    found |= {f"toy/AP/{name}": value for name, value in classes.items()}
    assert {name: float(value) for name, value in found.items()} == {k: v for k, v in results.items() if v is not None}


# --- sorting ----------------------------------------------------------------------------------------------------------


def test_a_click_sorts_by_the_exact_numbers(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["sweep"]) as visit:
        heading = visit.heading("runs", "optim.lr")
        assert heading.get_attribute("aria-sort") == "none"
        heading.locator("button").click()
        assert visit.column("runs", "optim.lr") == [
            "0.5",
            "0.5",
            "9.0",
            "9.0",
            "10.0",
            "10.0",
        ]  # not as text: 10.0 is last
        assert heading.get_attribute("aria-sort") == "ascending"
        assert visit.column("runs", "seed") == ["0", "1"] * 3  # equal rows keep their order
        heading.locator("button").click()
        assert visit.column("runs", "optim.lr") == ["10.0", "10.0", "9.0", "9.0", "0.5", "0.5"]
        assert heading.get_attribute("aria-sort") == "descending"
        visit.heading("runs", "toy/score").locator("button").click()
        values = list(map(float, visit.column("runs", "toy/score")))
        assert values == sorted(values)
        assert heading.get_attribute("aria-sort") == "none"
        assert visit.page.locator("#said").text_content() == "Sorted by toy/score, ascending"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_too(browser: Browser, pages: dict[str, Path], key: str) -> None:
    with browser.visit(pages["sweep"]) as visit:
        button = visit.heading("runs", "toy/error").locator("button")
        button.focus()
        visit.page.keyboard.press(key)
        values = list(map(float, visit.column("runs", "toy/error")))
        assert values == sorted(values)
        assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        visit.page.keyboard.press("Tab")
        focused = "document.activeElement.parentElement.dataset.name"
        assert visit.page.evaluate(focused) not in (None, "toy/error")


def test_what_is_missing_stays_last(browser: Browser, tmp_path: Path) -> None:
    cells = {
        f"row {i}": {"R": made.cell([float(value)] if value else [], 50.0)} for i, value in enumerate(["3", "1", "2"])
    }
    cells["absent"] = {"R": made.cell([], 50.0)}
    cells = {name: cells[name] for name in ("absent", "row 0", "row 1", "row 2")}
    report = write_report(made.reproduction(tmp_path / "r", ["R"], cells))
    with browser.visit(report.html) as visit:
        button = visit.heading("table", "here").locator("button")
        button.click()
        assert visit.column("table", "here") == ["1.0", "2.0", "3.0", ""]
        button.click()
        assert visit.column("table", "here") == ["3.0", "2.0", "1.0", ""]


def test_words_sort_as_people_would(browser: Browser, tmp_path: Path) -> None:
    cells = {name: {"R": made.cell([1.0], 1.0)} for name in ("net 10", "Net 9", "a", "net 2")}
    report = write_report(made.reproduction(tmp_path / "r", ["R"], cells))
    with browser.visit(report.html) as visit:
        visit.heading("table", "row").locator("button").click()
        assert visit.column("table", "row") == ["a", "net 2", "Net 9", "net 10"]


# --- light and dark ---------------------------------------------------------------------------------------------------


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of sRGB, as WCAG 2.2 defines it."""
    channels = [channel / 255 for channel in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_curves_stand_out_from_the_page(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    with browser.visit(pages["sweep"], scheme=scheme) as visit:  # type: ignore[arg-type]
        paper = visit.colour("body", "backgroundColor")
        assert (luminance(paper) > 0.8) == (scheme == "light")
        for selector in ("body", "h1", ".lead", ".facts dt", "td.number", ".legend li", ".note", "summary", ".bar a"):
            assert contrast(visit.colour(selector), paper) >= 4.5, selector
        for selector in ("text.tick", "text.name"):
            assert contrast(visit.colour(selector, "fill"), paper) >= 4.5, selector
        chip = visit.colour(".chip.good", "backgroundColor")
        assert contrast(visit.colour(".chip.good"), chip) >= 4.5
        for color in range(COLORS):
            visit.page.evaluate(f"document.querySelector('.legend i').className = 'color-{color}'")
            assert contrast(visit.colour(".legend i", "borderTopColor"), paper) >= 3, color


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_button_turns_the_colours_around(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    with browser.visit(pages["run"], scheme=scheme) as visit:  # type: ignore[arg-type]
        button = visit.page.locator("#theme")
        before = luminance(visit.colour("body", "backgroundColor"))
        assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
        button.click()
        assert (luminance(visit.colour("body", "backgroundColor")) > 0.5) != (before > 0.5)
        assert button.get_attribute("aria-pressed") == str(scheme == "light").lower()
        visit.page.reload()
        assert (luminance(visit.colour("body", "backgroundColor")) > 0.5) != (before > 0.5)  # remembered
        visit.requests.pop()  # the reload


# --- charts and pictures ----------------------------------------------------------------------------------------------


def test_a_chart_says_what_is_under_the_pointer(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["sweep"]) as visit:
        chart = visit.page.locator("figure.chart", has_text="step").first
        chart.scroll_into_view_if_needed()
        box = chart.locator("svg").bounding_box()
        visit.page.mouse.move(box["x"] + box["width"] - 16, box["y"] + box["height"] / 2)
        tip = chart.locator(".tip")
        assert tip.is_visible()
        said = tip.inner_text()
        assert said.startswith("step 40")
        assert said.count("(2 seeds)") == 3
        inside = "(tip) => tip.getBoundingClientRect().right <= document.documentElement.clientWidth"
        assert tip.evaluate(inside)
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 60)
        assert not tip.is_visible()


def test_a_picture_opens_and_closes(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["run"]) as visit:
        visit.page.locator(".enlarge").first.press("Enter")
        box = visit.page.locator("#lightbox")
        assert box.is_visible()
        assert "detections" in (box.locator("img").get_attribute("alt") or "")
        visit.page.keyboard.press("Escape")
        assert not box.is_visible()


def test_on_paper_it_is_light_and_whole(browser: Browser, pages: dict[str, Path]) -> None:
    with browser.visit(pages["sweep"], scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert luminance(visit.colour("body", "backgroundColor")) > 0.8
        assert not visit.page.locator("#theme").is_visible()
        assert visit.page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


@pytest.mark.parametrize("fault", ['<img src="http://127.0.0.1:9/a.png" alt="">', "<script>nothing.there</script>"])
def test_a_request_or_an_error_would_be_found(browser: Browser, tmp_path: Path, fault: str) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><title>a</title><link rel=icon href='data:,'>{fault}")

    with pytest.raises(AssertionError), browser.visit(tmp_path / "page.html"):
        pass
