"""What modules of tests leave behind."""

from collections.abc import Iterator

import pytest
from browser import close_browser


@pytest.fixture(scope="module", autouse=True)
def closed_browser() -> Iterator[None]:
    """Close the browser after the last test of a module that has opened one."""
    yield
    close_browser()
