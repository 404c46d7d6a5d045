"""What many tests of reports look at, and what modules of tests leave behind."""

from collections.abc import Iterator

import pytest
import xarray as xr
from browser import close_browser
from report_stores import six_features, toy_inputs

from chronocoder.report.inputs import ReportInputs


@pytest.fixture
def relie() -> xr.Dataset:
    return six_features()


@pytest.fixture
def inputs(relie: xr.Dataset) -> ReportInputs:
    return toy_inputs(relie)


@pytest.fixture(scope="module", autouse=True)
def closed_browser() -> Iterator[None]:
    """Close the browser after the last test of a module that has opened one."""
    yield
    close_browser()
