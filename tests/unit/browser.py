"""A real headless browser that tells of console messages and of requests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: pages are not opened in one")


@contextmanager
def opened(page: Path | str, width: int = 1280, fragment: str = "", dark: bool = False) -> Iterator[Any]:
    """Give a page as a browser shows it (Playwright's); fail where it complains or asks for what is elsewhere.

    Args:
        page: its file or its address.
        width: of the window, in pixels.
        fragment: what follows the address, with its `#`.
        dark: whether the reader prefers dark colours.
    """
    complaints: list[str] = []
    requests: list[str] = []
    scheme: Any = "dark" if dark else "light"
    size: Any = {"width": width, "height": 900}
    with _browser().new_context(viewport=size, color_scheme=scheme, accept_downloads=True) as context:
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: requests.append(request.url))
        shown.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        address = page if isinstance(page, str) else page.as_uri()
        shown.goto(address + fragment, wait_until="load")
        yield shown
    assert not complaints
    assert all(url.startswith((address.rpartition("/")[0], "data:", "blob:")) for url in requests)


_running: list[Any] = []
"""Playwright and its browser, as long as one runs: it takes longer to start than most tests."""


def _browser() -> Any:
    from playwright.sync_api import sync_playwright

    if not _running:
        playwright = sync_playwright().start()
        _running.append(playwright)
        options = ["--no-sandbox", "--disable-gpu"]
        _running.append(playwright.chromium.launch(executable_path=CHROMIUM, args=options))
    return _running[1]


def close_browser() -> None:
    """Close the browser that `opened` has started, if any: as long as it runs, no other event loop can."""
    if _running:
        playwright, *browsers = _running
        for browser in browsers:
            browser.close()
        playwright.stop()
        _running.clear()
