"""The pages of a report, and putting them in their place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from chronocoder.errors import StoreError
from chronocoder.report.ability_page import ability_page
from chronocoder.report.contrasts import Found, find_all_features
from chronocoder.report.crosscoders_page import crosscoders_page
from chronocoder.report.features_page import feature_page, features_page
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.method_page import method_page
from chronocoder.report.overview import overview
from chronocoder.report.run_effects import run_effects
from chronocoder.report.run_features import run_features
from chronocoder.report.site import Site
from chronocoder.report.tasks_page import tasks_page
from chronocoder.report.taskspace_page import taskspace_page
from chronocoder.stores import whole_directory

PARTS = ("data", "figures", "static")
LINKED, RUN, UNLINKED = "linked", "run", "unlinked"


@dataclass(frozen=True)
class Page:
    """A page of the report.

    Attributes:
        name: of its file, without the ending.
        label: what links to it are called.
        build: writes its figures and data, and returns what its template shows.
        kind: `LINKED` at the head of every page, of a `RUN`, or `UNLINKED`.
    """

    name: str
    label: str
    build: Callable[[Site], dict[str, Any]]
    kind: str = LINKED


def write_report(inputs: ReportInputs, directory: Path, processes: int = 1) -> None:
    """Write the report; its directory appears when it is whole, and takes the place of an earlier one.

    Args:
        inputs: what it shows.
        directory: where it belongs.
        processes: that share out the pages; what takes long is drawing the figures.

    Raises:
        StoreError: the directory holds what is no part of a report.
    """
    _check_is_of_report(directory)
    with whole_directory(directory) as partial_directory:
        site = Site(partial_directory)
        site.add_static()
        pages = list(pages_of(inputs))
        links = [(page.name, page.label) for page in pages if page.kind == LINKED]
        runs = [(page.name, page.label) for page in pages if page.kind == RUN]
        common = {"suite": inputs.suite, "inputs": inputs, "pages": links, "runs": runs}
        # Processes that are forked have the stores in memory already; of one that is killed this pool tells.
        with ProcessPoolExecutor(processes, get_context("fork"), _have, (site, pages, common)) as pool:
            list(pool.map(_write_page, range(len(pages))[::-1]))  # the last ones take longest


def _check_is_of_report(directory: Path) -> None:
    visible = {path.name for path in directory.glob("*") if not path.name.startswith(".")}
    if others := sorted(name for name in visible - {*PARTS} if not name.endswith(".html")):
        raise StoreError(
            f"{directory} holds {others[0]}, which is no part of a report and would be deleted: a report takes the"
            " place of all that its directory holds; give it one of its own"
        )


_had: dict[str, Any] = {}
"""What the processes of `write_report` write pages of."""


def _have(site: Site, pages: Sequence[Page], common: Mapping[str, Any]) -> None:
    _had.update(site=site, pages=pages, common=common)


def _write_page(place: int) -> None:
    site, page = _had["site"], _had["pages"][place]
    template = "run" if page.kind == RUN else page.name
    site.page_from(template, page.name, **_had["common"], **page.build(site))


def pages_of(inputs: ReportInputs) -> Iterator[Page]:
    """Yield the pages that the stores have something to show on, in the order of the links to them."""
    found = [find_all_features(inputs, run) for run in inputs.runs]
    yield Page("index", "Overview", partial(overview, inputs, found[0] if found else {}))
    yield Page("ability", "Ability", partial(ability_page, inputs))
    if inputs.runs:
        yield Page("crosscoders", "Crosscoders", partial(crosscoders_page, inputs))
        for run, of_run in zip(inputs.runs, found, strict=True):
            yield Page(f"run-{run.key.slug}", run.key.label, partial(_run_page, inputs, run, of_run), RUN)
        yield Page("features", "Features", partial(features_page, inputs))
        yield Page("feature", "Feature", partial(feature_page, inputs), UNLINKED)
        yield Page("tasks", "Tasks", partial(tasks_page, inputs))
    if inputs.transfer is not None:
        yield Page("taskspace", "Task space", partial(taskspace_page, inputs))
    yield Page("method", "Method", partial(method_page, inputs))


def _run_page(inputs: ReportInputs, run: Run, found: Found, site: Site) -> dict[str, Any]:
    return {"run": run, **run_features(inputs, run, site), **run_effects(inputs, run, found, site)}
