"""The pages of a report, and putting them in their place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chronocoder.report.contrasts import find_all_features
from chronocoder.report.crosscoders_page import crosscoders_page
from chronocoder.report.features_page import feature_page, features_page
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.method_page import method_page
from chronocoder.report.overview import overview
from chronocoder.report.site import Site
from chronocoder.stores import whole_directory


@dataclass(frozen=True)
class Page:
    """A page of the report.

    Attributes:
        name: of its file, without the ending.
        label: what links to it are called; empty if it is not among those on every page.
        build: writes its figures and data, and returns what its template shows.
        template: name of its template; that of its file if it is empty.
    """

    name: str
    label: str
    build: Callable[[Site], dict[str, Any]]
    template: str = ""


def write_report(inputs: ReportInputs, directory: Path) -> None:
    """Write the report; its directory appears when it is whole, and takes the place of an earlier one."""
    with whole_directory(directory) as partial_directory:
        site = Site(partial_directory)
        site.add_static()
        pages = list(pages_of(inputs))
        links = [(page.name, page.label) for page in pages if page.label]
        for page in pages:
            context = page.build(site)
            site.page_from(
                page.template or page.name, page.name, suite=inputs.suite, pages=links, inputs=inputs, **context
            )


def pages_of(inputs: ReportInputs) -> Iterator[Page]:
    """Yield the pages that the stores have something to show on, in the order of the links to them."""
    found = [find_all_features(inputs, run) for run in inputs.runs]
    yield Page("index", "Overview", partial(overview, inputs, found[0] if found else {}))
    if inputs.runs:
        yield Page("crosscoders", "Crosscoders", partial(crosscoders_page, inputs))
        yield Page("features", "Features", partial(features_page, inputs))
        yield Page("feature", "", partial(feature_page, inputs))
    yield Page("method", "Method", partial(method_page, inputs))
