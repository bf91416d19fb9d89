"""The page of a sweep in a real browser: it draws, filters and sorts, logs no error, asks the network for nothing."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from spo.report.compared.words import interval
from spo.report.sweep.page import document
from spo.report.sweep.payload import Sweep
from spo.run_folder import RunFolder
from spo.sweep.store import SweepFolder
from tests.report.evaluations import samples, write_more, write_samples
from tests.report.sweeps import LINES, language_models

NAMES = ("chromium", "chromium-browser", "google-chrome")
PER_METHOD = 1 + 1 + 3  # of a frontier: its band, its line, the betas of three seeds
NONE = "\N{EN DASH}"
MEND = (
    "No Chromium was found, and the page of a sweep is only known to work where a browser opened it: install one "
    f"(apt-get install chromium), or name it: CHROMIUM=/path/to/it. Looked for {', '.join(NAMES)} on PATH."
)


def chromium() -> str:
    """A failure, not a skip: CI must not pass without the browser."""
    named = os.environ.get("CHROMIUM")
    found = named if named and Path(named).is_file() else next(filter(None, map(shutil.which, NAMES)), None)
    return found or pytest.fail(MEND)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = language_models(tmp_path_factory.mktemp("sweep"))
    for number in range(6):  # DPO, then PSPO, of three seeds each
        run = RunFolder(folder / str(number))
        table = samples(0.3 if number < 3 else 0.6, number % 3, prompts=20, betas=(2.0, 1.0, 0.25))
        write_samples(run, table, kl=None)
        write_more(run, 0.3)
        run.append_metrics(1, {"link/orientation_z": 0.5 if number == 4 else 3.0})
    path = folder / "report.html"
    path.write_text(document("Alignment report", Sweep(SweepFolder(folder), folder).data, []))
    return path


@pytest.fixture(scope="module")
def page(html: Path) -> Iterator[Page]:
    """Opened; `page.troubles` are errors of the console and everything that was asked of the network."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        troubles: list[str] = []
        opened.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.on(
            "request",
            lambda asked: troubles.append(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None,
        )
        opened.goto(html.as_uri())
        opened.troubles = troubles  # type: ignore[attr-defined]
        yield opened
        browser.close()


@pytest.fixture(autouse=True)
def _fresh(page: Page) -> Iterator[None]:
    page.click("#reset")
    yield
    assert page.troubles == []  # type: ignore[attr-defined]


def column(page: Page, title: str) -> list[str]:
    heads = [head.strip() for head in page.locator("#runs th").all_inner_texts()]
    return page.locator(f"#runs td:nth-child({heads.index(title) + 1})").all_inner_texts()


def drawn(page: Page, section: str) -> int:
    """Lines in a figure."""
    page.locator(f"#{section}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#{section}:not([data-stale])")
    found: int = page.evaluate(f"document.querySelector('#{section} .plot').data.length")
    return found


def choose(page: Page, key: str, *off: str) -> None:
    """Takes values out of a filter."""
    menu = page.locator(f'[data-filter="{key}"]')
    menu.locator("summary").click()
    for value in off:
        menu.get_by_label(value, exact=True).uncheck()
    menu.locator("summary").click()


def test_every_figure_is_drawn(page: Page) -> None:
    for section in ("methods", "outcome", "paired", "frontier", "curves", "links", "indices", "ranking", "sampling"):
        assert drawn(page, section) > 0, section
    assert page.locator("#failed pre").inner_text().endswith(LINES.strip())
    assert "8 (6 ok, 1 queued, 1 failed)" in page.locator(".facts").inner_text()


def test_a_filter_chooses_rows_and_lines(page: Page) -> None:
    before = drawn(page, "frontier")
    choose(page, "method", "dpo")
    assert set(column(page, "method")) == {"pspo"}
    assert page.locator("#shown").inner_text() == "4 of 8 jobs"
    assert drawn(page, "frontier") == before - PER_METHOD
    choose(page, "status", "failed")
    assert page.locator("#shown").inner_text() == "3 of 8 jobs"
    assert page.locator("#failed pre").count() == 0
    choose(page, "method", "pspo")
    assert page.locator("#shown").inner_text() == "0 of 8 jobs"
    assert "No job of this choice" in page.locator("#frontier .note").inner_text()


def test_a_heading_sorts_numbers_as_numbers(page: Page) -> None:
    """Seconds are 10 - job: as text 10 would come before 3; jobs without a number stay last."""
    head = page.locator("#runs th button", has_text="time (s)")
    head.click()
    assert column(page, "time (s)") == ["3", "4", "5", "6", "7", "8", "9", "10"]
    head.click()
    assert column(page, "job") == [str(i) for i in range(8)]
    reward = page.locator("#runs th button", has_text="reward at KL 1 nats")
    reward.click()
    assert column(page, "job")[:2] == ["0", "1"]
    reward.click()
    assert column(page, "job")[:2] == ["5", "4"]
    assert column(page, "reward at KL 1 nats")[-2:] == [NONE, NONE]


def test_paired_differences(page: Page) -> None:
    """PSPO less DPO is 0.02 on each of three seeds (tests/report/sweeps.py), so that the interval is a point."""
    drawn(page, "paired")
    cells = page.locator("#paired tbody tr").first.locator("td").all_inner_texts()
    assert (cells[0], cells[6], cells[7]) == ("PSPO", "3", "above 0")
    assert float(cells[4]) == pytest.approx(0.02, abs=1e-6)


def test_methods_compared_follow_the_filter(page: Page) -> None:
    """The cells are those of spo.report.compared; of one seed it is said that prompts alone are behind the interval."""
    folder = Path(page.url.removeprefix("file://")).parent
    sweep = Sweep(SweepFolder(folder), folder)
    drawn(page, "methods")
    row = page.locator("#methods tbody tr").nth(1).locator("td")
    cell = sweep.compared.cells[1]
    assert row.nth(3).inner_text() == interval(cell.difference, signed=True)
    assert row.nth(4).inner_text() == interval(cell.win)
    assert "above DPO: PSPO by" in page.locator("#methods .verdict").inner_text()
    assert "(z-score below 2) of PSPO 0.5." in page.locator("#methods .verdict").inner_text()
    choose(page, "seed", "1", "2")
    assert "of PSPO 0.5" not in page.locator("#methods .verdict").inner_text()
    assert "One seed: the interval is over prompts only" in page.locator("#methods .verdict").inner_text()
    assert row.nth(6).inner_text() == "1"


def test_the_slider_shows_earlier_fits(page: Page) -> None:
    drawn(page, "links")
    slider = page.locator("#links input[type=range]")
    slider.fill("2")
    assert page.locator("#links output").inner_text() == "step 50"
    titles = page.evaluate("document.querySelector('#links .plot').layout.annotations.map(a => a.text)")
    assert len(titles) == 2
    assert all("step 50" in title for title in titles)
    page.locator("#indices").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#indices output').textContent === 'step 50'")


def test_the_legend_hides_a_method_everywhere(page: Page) -> None:
    before = drawn(page, "frontier")
    page.locator("#frontier .entry", has_text="PSPO").click()
    assert drawn(page, "frontier") == before - PER_METHOD
    page.locator("#frontier .entry", has_text="PSPO").click()
    assert drawn(page, "frontier") == before
