"""The pages of a report, and putting them in their place."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from chronocoder.errors import StoreError
from chronocoder.report.ability_page import ability_page
from chronocoder.report.contrasts import Found, find_all_features
from chronocoder.report.crosscoders_page import crosscoders_page
from chronocoder.report.features_page import feature_page, features_page, write_features
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
_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """What one process writes without the others.

    Attributes:
        label: what it writes.
        write: writes it.
    """

    label: str
    write: Callable[[], None]


@dataclass(frozen=True)
class Page:
    """A page of the report.

    Attributes:
        name: of its file, without the ending.
        label: what links to it are called.
        build: writes its figures and data, and returns what its template shows.
        kind: `LINKED` at the head of every page, of a `RUN`, or `UNLINKED`.
        data: by label, what writes the data that it loads; each may be written by another process.
    """

    name: str
    label: str
    build: Callable[[Site], dict[str, Any]]
    kind: str = LINKED
    data: Mapping[str, Callable[[Site], None]] = field(default_factory=dict)


def write_report(inputs: ReportInputs, directory: Path, processes: int = 1) -> None:
    """Write the report; its directory appears when it is whole, and takes the place of an earlier one.

    Args:
        inputs: what it shows.
        directory: where it belongs.
        processes: that share out pages and data; what takes long is drawing the figures.

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
        jobs = [job for page in pages for job in _jobs_of(page, site, common)]
        # Processes that are forked have the stores in memory already; of one that is killed this pool tells.
        with ProcessPoolExecutor(processes, get_context("fork"), _have, (jobs,)) as pool:
            list(pool.map(_do, range(len(jobs))[::-1]))  # the last ones take longest


def _check_is_of_report(directory: Path) -> None:
    visible = {path.name for path in directory.glob("*") if not path.name.startswith(".")}
    if others := sorted(name for name in visible - {*PARTS} if not name.endswith(".html")):
        raise StoreError(
            f"{directory} holds {others[0]}, which is no part of a report and would be deleted: a report takes the"
            " place of all that its directory holds; give it one of its own"
        )


_had: list[Job] = []
"""The jobs of the processes of `write_report`."""


def _have(jobs: list[Job]) -> None:
    _had[:] = jobs


def _do(place: int) -> None:
    job, start, before = _had[place], time.perf_counter(), time.process_time()
    job.write()
    _log.info("%s took %.1f s, %.1f s of CPU", job.label, time.perf_counter() - start, time.process_time() - before)


def _jobs_of(page: Page, site: Site, common: dict[str, Any]) -> Iterator[Job]:
    yield Job(f"page {page.name}", partial(_write_page, page, site, common))
    for label, write in page.data.items():
        yield Job(f"data of {label}", partial(write, site))


def _write_page(page: Page, site: Site, common: dict[str, Any]) -> None:
    template = "run" if page.kind == RUN else page.name
    site.page_from(template, page.name, **common, **page.build(site))


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
        features = {run.key.label: partial(write_features, run) for run in inputs.runs}
        yield Page("feature", "Feature", partial(feature_page, inputs), UNLINKED, features)
        yield Page("tasks", "Tasks", partial(tasks_page, inputs))
    if inputs.transfer is not None:
        yield Page("taskspace", "Task space", partial(taskspace_page, inputs))
    yield Page("method", "Method", partial(method_page, inputs))


def _run_page(inputs: ReportInputs, run: Run, found: Found, site: Site) -> dict[str, Any]:
    return {"run": run, **run_features(inputs, run, site), **run_effects(inputs, run, found, site)}
