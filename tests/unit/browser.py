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
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        scheme = "dark" if dark else "light"
        shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: requests.append(request.url))
        shown.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        address = page if isinstance(page, str) else page.as_uri()
        shown.goto(address + fragment, wait_until="load")
        yield shown
        browser.close()
    assert not complaints
    assert all(url.startswith((address.rpartition("/")[0], "data:", "blob:")) for url in requests)
