"""The whole report as a browser shows it: every page, at two widths, in light, in dark and in print, by keyboard."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from browser import needs_browser, opened
from report_stores import (
    longer,
    make_run,
    relie_store,
    six_features,
    toy_inputs,
    with_clusters,
    with_control,
    with_languages,
)
from taskspace_stores import with_task_space

from chronocoder.figures.chart import STYLE
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.pages import write_report
from chronocoder.stores import strings

PAIR, COURSE = "pair-l1-seed0", "course-l1-seed0"
PAGES = {
    **dict.fromkeys(("index", "ability", "crosscoders", f"run-{PAIR}", f"run-{COURSE}"), ""),
    "features": "",
    "feature": f"#{PAIR}/0",
    **dict.fromkeys(("tasks", "taskspace", "method"), ""),
}
HOSTILE = (
    " </script><x-hostile>&amp;",
    "\"><img src=x onerror='window.hostile=1'>",
    "<!--",
    "';window.hostile=1;//",
    "${window.hostile=1}",
    r"$\frac{$",
    "\x1b[2J\u202e\u2028\x00",
    '=HYPERLINK("x")',
)
GIVEN = ("token", "right", "wrong", "example_source", "example_language")
"""Variables whose text comes from corpora and tasks; of tokens, all that begin so."""
PHONE, MEGABYTE = 375, 1_000_000
MANY = 10_000
CONTROLS = "a[href], button, select, input:not([type=hidden]), textarea, summary, [tabindex='0']"


def hostile_store(store: xr.Dataset) -> xr.Dataset:
    """The same store with markup, scripts, mathematics and control characters for all text that others have given."""
    given = [str(name) for name in store.data_vars if str(name).startswith(GIVEN) and store[name].dtype.kind in "TUO"]
    texts = np.array(HOSTILE, dtype=object)
    filled = {name: store[name].copy(data=strings(np.resize(texts, store[name].shape))) for name in given}
    store = store.assign(filled)
    if "condition" not in store.coords:
        return store
    names = [f"{name} {HOSTILE[place]}" for place, name in enumerate(store["condition"].values.tolist())]
    return store.assign_coords(condition=strings(names))


def hostile_run(run: Run) -> Run:
    stores = {name: hostile_store(getattr(run, name)) for name in ("relie", "features")}
    by_task = {}
    for task, ablation in run.ablations.items():
        places = dict(zip(run.relie["condition"].values.tolist(), stores["relie"]["condition"].values, strict=True))
        renamed = [places[name] for name in ablation["condition"].values.tolist()]
        by_task[task] = hostile_store(ablation).assign_coords(condition=strings(renamed))
    return replace(run, ablations=by_task, **stores)


def whole_inputs() -> ReportInputs:
    """Everything that a report may show: two runs, controls, languages, a task space, and hostile text."""
    inputs = with_task_space(with_languages(with_control(toy_inputs(six_features())), {"agreement": [False, True]}))
    course = make_run(with_clusters(longer(inputs.runs[0].relie)), "course")
    comparisons = {**inputs.comparisons, "course": course.checkpoints}
    return replace(inputs, runs=[hostile_run(run) for run in (*inputs.runs, course)], comparisons=comparisons)


def large_inputs() -> ReportInputs:
    """A run of ten thousand features, all with some effect."""
    effects = np.random.default_rng(0).normal(size=(2, 2, MANY)).tolist()
    classes = np.resize(["emerged", "maintained", "discontinued", "uncertain"], MANY).tolist()
    return toy_inputs(relie_store(*effects, classes))


@pytest.fixture(scope="module", autouse=True)
def outlines() -> Iterator[None]:
    """Fonts of PDF files as outlines: to embed parts of them takes a third of the time of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "pdf.fonttype", 3)
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a directory whose name has to be quoted in an address."""
    directory = tmp_path_factory.mktemp("site") / "report #1, 50%"
    write_report(whole_inputs(), directory)
    return directory


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("large") / "report"
    write_report(large_inputs(), directory)
    return directory


@pytest.fixture(scope="module", params=PAGES)
def shown(request: pytest.FixtureRequest, report: Path) -> Iterator[Any]:
    """Each page of the report, opened; tests that open pages themselves come before those with this one."""
    with loaded(report, request.param) as page:
        yield page


@contextmanager
def loaded(report: Path, name: str) -> Iterator[Any]:
    """Give a page with the data that it loads."""
    with opened(report / f"{name}.html", fragment=PAGES[name]) as page:
        page.wait_for_load_state("networkidle")
        yield page


def as_seen(page: Any, width: int = 1280, colours: str = "light", medium: str = "screen") -> Any:
    """The page as it is seen at a width, in a colour scheme and medium."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(media=medium, color_scheme=colours)
    return page


def local_files(page: Any, report: Path, query: str, attribute: str) -> list[tuple[Path, str]]:
    """Files of the report that elements of a page name, with the fragments behind them."""
    seen = "found.filter(element => element.tagName !== 'A' || element.checkVisibility())"
    addresses = page.eval_on_selector_all(query, f"found => {seen}.map(element => element.{attribute})")
    parts = [urlsplit(address) for address in addresses]
    local = [(Path(unquote(part.path)), unquote(part.fragment)) for part in parts if part.scheme == "file"]
    assert all(path.is_relative_to(report) for path, _ in local)
    return local


def test_all_pages_are_tested(report: Path) -> None:
    assert {path.stem for path in report.glob("*.html")} == set(PAGES)


def test_pages_hold_no_code_or_style_of_their_own(report: Path) -> None:
    for path in report.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "script-src 'self'" in text and "unsafe" not in text
        assert not re.search(r"<script(?! src=\"(?:static|data)/)|<style|javascript:", text)
        assert not re.search(r"<[a-z][^<>]*\s(?:style|on[a-z]+)=", re.sub(r'"[^"]*"|\'[^\']*\'', '""', text))


def test_scripts_make_no_markup_of_text(report: Path) -> None:
    """Own scripts: that of tables comes from its package."""
    own = [path for path in report.glob("static/*.js") if path.name != "datatables.js"]
    assert len(own) > 1
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_every_figure_has_its_files(report: Path) -> None:
    drawn = sorted(report.glob("figures/**/*.svg"))
    assert drawn
    for path in drawn:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.stat().st_size < 2 * MEGABYTE
        columns, *rows = path.with_suffix(".csv").read_text("utf-8").splitlines()
        assert path.with_suffix(".pdf").exists() and rows
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in columns.split(",")), columns


TEXTS = """() => {
  const whole = document.documentElement.getBoundingClientRect();
  const texts = [...document.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const cut = texts.filter(([, { left, right, top, bottom }]) =>
    left < whole.left - 1 || right > whole.right + 1 || top < whole.top - 1 || bottom > whole.bottom + 1);
  const overlap = (one, other) => [
    Math.min(one.right, other.right) - Math.max(one.left, other.left),
    Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top),
  ];
  const over = texts.filter(([, box], place) => texts.slice(0, place).some(([, other]) => {
    const [width, height] = overlap(box, other);
    return width > 2 && height > 3;
  }));
  return [...cut, ...over].map(([text]) => text);
}"""
"""What is cut off by the edge of an SVG file, and what overlaps other text."""


@needs_browser
def test_no_text_of_a_figure_is_cut_off_or_overlaps_another(report: Path) -> None:
    unread = {}
    with opened(report / "index.html") as page:
        page.set_viewport_size({"width": 1600, "height": 1600})
        for path in sorted(report.glob("figures/**/*.svg")):
            page.goto(path.as_uri())
            unread[path.name] = page.evaluate(TEXTS)
    assert not {name: texts for name, texts in unread.items() if texts}


@needs_browser
def test_hostile_tokens_are_shown_as_they_are(report: Path) -> None:
    with loaded(report, "feature") as page:
        text = page.evaluate("document.body.textContent")
    assert all(hostile.strip() in text for hostile in HOSTILE[:6])


@needs_browser
def test_report_works_from_a_web_server_too(report: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(report))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for name in ("index", "features", "feature"):
            with opened(f"{address}/{name}.html", fragment=PAGES[name]) as page:
                assert page.locator("h1").count() == 1
        server.shutdown()


@needs_browser
@pytest.mark.parametrize("which", ["report", "large_report"])
def test_overview_loads_less_than_a_megabyte(which: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(which)
    files = {directory / "index.html"}
    with opened(directory / "index.html") as page:
        for query, attribute in (("img", "src"), ("script[src]", "src"), ("link[rel=stylesheet]", "href")):
            files |= {path for path, _ in local_files(page, directory, query, attribute)}
    assert sum(path.stat().st_size for path in files) < MEGABYTE


@needs_browser
def test_pages_of_ten_thousand_features_stay_small(large_report: Path) -> None:
    """Each file by itself: data is loaded when it is asked for."""
    for path in large_report.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 4 * MEGABYTE, path
    for name in ("features", f"run-{PAIR}"):
        with loaded(large_report, name) as page:
            assert page.evaluate("document.querySelectorAll('*').length") < 5_000


@needs_browser
def test_page_has_one_heading_and_says_where_it_is(shown: Any) -> None:
    assert shown.locator("h1").count() == shown.locator("main").count() == 1
    name = Path(unquote(urlsplit(shown.url).path)).stem
    current = shown.eval_on_selector_all("header nav [aria-current=page]", "found => found.map(link => link.href)")
    assert name == "feature" or [Path(unquote(urlsplit(link).path)).stem for link in current] == [name]


@needs_browser
def test_links_lead_somewhere(shown: Any, report: Path) -> None:
    for path, fragment in local_files(shown, report, "a[href]", "href"):
        assert path.is_file(), path
        run, *place = fragment.split("/")
        if place and path.stem == "feature":
            assert (report / "data" / run).is_dir() and place[0].isdigit()
        elif place:
            assert (report / "data" / run).is_dir() and path.stem == "features"
        elif fragment:
            assert re.search(rf'\sid="{re.escape(fragment)}"', path.read_text(encoding="utf-8")), (path, fragment)


@needs_browser
def test_images_are_there_and_described(shown: Any, report: Path) -> None:
    shown.eval_on_selector_all("img", "found => found.forEach(image => { image.loading = 'eager'; })")
    shown.wait_for_function("() => [...document.images].every(image => image.complete)")
    images = shown.eval_on_selector_all(
        "img", "found => found.map(image => [image.naturalWidth, image.alt, image.src])"
    )
    for width, alt, source in images:
        assert width > 0 and len(alt) > 10, source


@needs_browser
def test_page_does_not_scroll_sideways_on_a_phone(shown: Any) -> None:
    page = as_seen(shown, PHONE)
    wide = """() => [...document.querySelectorAll("main *")].filter(element => !element.closest(".scroll")
        && element.getBoundingClientRect().right > innerWidth + 1).map(element => element.outerHTML.slice(0, 200))"""
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE, page.evaluate(wide)


@needs_browser
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, PHONE])
def test_page_is_accessible(shown: Any, colours: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Without loading style sheets once more, which the policy of the pages forbids.
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(as_seen(shown, width, colours), options=options).response["violations"]
    told = [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]]
    assert not told


@needs_browser
def test_keyboard_reaches_everything_and_shows_where_it_is(shown: Any) -> None:
    page = as_seen(shown)
    page.evaluate(
        """query => {
          window.controls = [...document.querySelectorAll(query)]
            .filter(element => element.checkVisibility() && !element.disabled && element.tabIndex >= 0);
          window.reached = new Set();
          window.unmarked = new Set();
          document.activeElement.blur();
          document.addEventListener("focusin", ({ target }) => {
            reached.add(target);
            const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(target);
            if ((outlineStyle === "none" || outlineWidth === "0px") && boxShadow === "none") unmarked.add(target);
          });
        }""",
        CONTROLS,
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('a.skip')")
    for _ in range(page.evaluate("controls.length") + 50):
        page.keyboard.press("Tab")
    outer = "element => element.outerHTML.slice(0, 200)"
    assert not page.evaluate(f"controls.filter(element => !reached.has(element)).map({outer})")
    assert not page.evaluate(f"[...unmarked].filter(element => element.isConnected).map({outer})")


@needs_browser
def test_page_can_be_printed(shown: Any) -> None:
    """On white, also where the screen is dark, without links between pages and with whole tables."""
    page = as_seen(shown, 794, "dark", "print")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    assert not any(links.is_visible() for links in page.locator("header.site nav").all())
    cut = "found => found.filter(element => element.scrollHeight > element.clientHeight + 1).length"
    assert page.eval_on_selector_all(".scroll", cut) == 0
    assert page.pdf().startswith(b"%PDF")


@needs_browser
def test_figures_are_those_of_the_choice(shown: Any) -> None:
    page = as_seen(shown)
    for group in page.locator(".figure-group:has(select)").all():
        selects = group.locator("select").all()
        for select in selects:
            select.select_option(select.evaluate("select => [...select.options].findLast(one => !one.disabled).value"))
        chosen = [select.evaluate("select => select.value") for select in selects]
        figures = group.locator("figure").all()
        choices = [figure.evaluate("figure => JSON.parse(figure.dataset.choices)") for figure in figures]
        assert [figure.is_visible() for figure in figures] == [choice == chosen for choice in choices]
        assert chosen in choices


@needs_browser
def test_hostile_text_stays_text(shown: Any) -> None:
    assert shown.locator("x-hostile, main script, img[src=x]").count() == 0
    assert shown.evaluate("window.hostile === undefined")
