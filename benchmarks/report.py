"""Write the report of many features, tasks and seeds, and use it in a browser.

Its stores are those of one crosscoder that has been run, repeated: as many features act on a task as `--active` says,
others on each, and the rest have no effect; counts of classes stay those of the original. Every task has one condition,
as BLiMP's have, and seeds are not compared. The report is written by the script that the DAG runs, its start included.

    make run && python benchmarks/report.py results/nursery --latents 16384 --tasks 67 --seeds 3
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import xarray as xr
import yaml

from chronocoder.attribution.collect import collect_attributions
from chronocoder.behaviour.collect import collect_behaviour
from chronocoder.config import TrajectorySettings
from chronocoder.stores import load_store, strings, write_store

SCRIPT = Path(__file__).parent.parent / "scripts" / "write_report.py"
PHENOMENA = 12
TOP_FEATURES = 12
ABLATED = ("feature", "top_feature")
TAKEN = re.compile(r": (.+ took .+)$", re.MULTILINE)
TABLE = "document.querySelectorAll('#features tbody tr').length > 1"
USES = {
    "search": "Object.assign(document.querySelector('[type=search]'), {value: 'er'}).dispatchEvent(new Event('input'))",
    "sort": "document.querySelector('#features thead th:nth-child(3) [role=button]').click();",
    "filter": "document.getElementById('measurable').click();",
}
SHOWN = """() => new Promise(resolve => {
    const start = performance.now(), body = document.querySelector("#features tbody");
    const done = () => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    new MutationObserver((_, observer) => { observer.disconnect(); done(); }).observe(body, { childList: true });
    %s
})"""
"""Milliseconds from a use of the table to the next frame in which other rows are drawn."""


class Sizes(NamedTuple):
    """What the report is about.

    Attributes:
        latents: of each crosscoder.
        tasks: sets of minimal pairs.
        seeds: crosscoders.
        active: which fraction of the latents acts on a task.
    """

    latents: int
    tasks: int
    seeds: int
    active: float


def main() -> None:
    """Read the arguments, make stores where there are none yet, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="results of a suite")
    parser.add_argument("--run", default="course/batchtopk/seed0", help="its crosscoder that is repeated")
    parser.add_argument("--latents", type=int, default=16384)
    parser.add_argument("--tasks", type=int, default=67)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--active", type=float, default=0.25, help="fraction of the latents that acts on a task")
    parser.add_argument("--processes", type=int, nargs="+", default=[4])
    parser.add_argument("--directory", type=Path, help="for stores and reports, to be kept; its stores are used again")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.latents, arguments.tasks, arguments.seeds, arguments.active)
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.directory or Path(scratch)
        if not (directory / "flags.json").exists():
            flags = make_stores(arguments.suite, arguments.run, sizes, directory)
            (directory / "flags.json").write_text(json.dumps(flags))
        for processes in arguments.processes:
            report = directory / "report"
            write_report(json.loads((directory / "flags.json").read_text()), report, processes)
            show_sizes(report)
        if browser := next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None):
            use_pages(report, browser)


def show(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_stores(suite: Path, run: str, sizes: Sizes, directory: Path) -> list[str]:
    """Write all stores, and return the flags of the script that name them."""
    sources = sorted(path.stem for path in (suite / run / "attribution").glob("*.zarr"))
    tasks = {f"set_{place}": sources[place % len(sources)] for place in range(sizes.tasks)}
    scores = {name: of_task(suite / "behaviour" / f"{task}.zarr", name) for name, task in tasks.items()}
    behaviour = collect_behaviour(scores)
    write_store(behaviour, directory / "behaviour.zarr", load_store(suite / "behaviour.zarr").attrs)
    comparison = yaml.safe_load((suite / "comparisons.yaml").read_text())[run.split("/")[0]]
    (directory / "comparisons.yaml").write_text(yaml.safe_dump({"bench": comparison}))
    for seed in range(sizes.seeds):
        make_run(suite / run, tasks, sizes, seed, directory / f"seed{seed}")
    stores = {f"{kind}s": sorted(directory.glob(f"seed*/{kind}.zarr")) for kind in ("training", "evaluation", "relie")}
    stores |= {"features": sorted(directory.glob("seed*/features.zarr"))}
    stores |= {"ablations": sorted(directory.glob("seed*/ablation/*.zarr"))}
    first, *others = tasks
    return [
        f"--suite={suite.name}", f"--behaviour={directory / 'behaviour.zarr'}",
        f"--similarity={suite / 'similarity.zarr'}", f"--comparisons={directory / 'comparisons.yaml'}",
        f"--contrasts={json.dumps({first: others[:2]})}",
        *(word for flag, paths in stores.items() for word in (f"--{flag}", *map(str, paths))),
    ]  # fmt: skip


def of_task(path: Path, name: str) -> xr.Dataset:
    """Return a store as that of another task, of one of so many phenomena."""
    phenomenon = f"phenomenon {int(name.rpartition('_')[2]) % PHENOMENA}"
    return load_store(path).assign_attrs(task=name, language="", phenomenon=phenomenon)


def make_run(source: Path, tasks: Mapping[str, str], sizes: Sizes, seed: int, directory: Path) -> None:
    """Write the stores of one crosscoder."""
    generator = np.random.default_rng(seed)
    facts: dict[str, Any] = {"comparison": "bench", "seed": seed}
    attributions = {}
    for name, task in tasks.items():
        attribution = in_one_condition(of_task(source / "attribution" / f"{task}.zarr", name))
        places = spread(attribution, sizes, generator)
        attributions[name] = at(attribution, places, np.arange(sizes.latents))
        ablation = in_one_condition(of_task(source / "ablation" / f"{task}.zarr", name))
        moved = {dim: [int(np.flatnonzero(places == old)[0]) for old in ablation[dim].values] for dim in ABLATED}
        write_store(ablation.assign_coords(moved), directory / "ablation" / f"{name}.zarr", ablation.attrs | facts)
    relie = collect_attributions(attributions, TrajectorySettings())
    write_store(relie, directory / "relie.zarr", load_store(source / "relie.zarr").attrs | facts)
    size = abs(relie["indirect_effect"]).fillna(0).transpose(..., "feature").values
    shown = np.unique(np.argsort(-size, axis=-1)[..., :TOP_FEATURES])
    for kind, numbers in (("features", shown), ("evaluation", np.arange(sizes.latents))):
        store = load_store(source / f"{kind}.zarr")
        repeated = at(store, np.resize(np.arange(store.sizes["feature"]), numbers.size), numbers)
        write_store(repeated, directory / f"{kind}.zarr", store.attrs | facts)
    training = load_store(source / "training.zarr")
    write_store(training, directory / "training.zarr", training.attrs | facts)


def in_one_condition(store: xr.Dataset) -> xr.Dataset:
    """Return a store with the first of its conditions alone, which has no name."""
    alone = store.isel(condition=[0]).assign_coords(condition=strings([""]))
    if "example_condition" in alone:
        alone["example_condition"] = xr.full_like(alone["example_condition"], "")
    return alone


def spread(attribution: xr.Dataset, sizes: Sizes, generator: np.random.Generator) -> np.ndarray:
    """Return for each of so many latents the place of the feature that it repeats: most repeat one without effect."""
    acts = (abs(attribution["indirect_effect"]) > 0).any("checkpoint").values
    places = np.full(sizes.latents, np.flatnonzero(~acts)[0])
    numbers = generator.permutation(sizes.latents)[: round(sizes.active * sizes.latents)]
    places[numbers] = np.resize(np.flatnonzero(acts), numbers.size)
    return places


def at(store: xr.Dataset, places: np.ndarray, numbers: np.ndarray) -> xr.Dataset:
    """Return a store with the features at some places, called by other numbers."""
    return store.isel(feature=places).assign_coords(feature=numbers)


def write_report(flags: Sequence[str], directory: Path, processes: int) -> None:
    """Run the script, and print its time, that of its parts, and the peak of the memory of its processes."""
    command = [sys.executable, SCRIPT, *flags, f"--output={directory / 'index.html'}", f"--processes={processes}"]
    before, started, peak = cpu_seconds(), time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as log:
        script = subprocess.Popen(command, stderr=log)
        watched = psutil.Process(script.pid)
        while script.poll() is None:
            peak = max(peak, memory_gb(watched))
            time.sleep(2)  # counting what processes share takes its time
        log.seek(0)
        text = log.read()
    if script.returncode:
        raise SystemExit(text)
    seconds, cpu_s = time.perf_counter() - started, cpu_seconds() - before
    show(f"{processes} processes: {seconds:.0f} s, {cpu_s:.0f} s of CPU, {peak:.1f} GB")
    for line in TAKEN.findall(text):
        show(f"  {line}")


def cpu_seconds() -> float:
    """Return what all processes have taken that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_gb(process: psutil.Process) -> float:
    """Return the memory of a process and its children, what they share counted once."""
    try:
        return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)]) / 1e9
    except psutil.NoSuchProcess:  # it ended meanwhile
        return 0.0


def show_sizes(report: Path) -> None:
    """Print what the report takes on disk."""
    sizes = {path.relative_to(report): path.stat().st_size for path in report.rglob("*") if path.is_file()}
    pages, data, figures = (
        {path: size for path, size in sizes.items() if path.match(pattern)}
        for pattern in ("*.html", "data/*/*.js", "*.svg")
    )
    shown = [sizes[Path(name)] for name in ("index.html", "static/style.css", "static/page.js")]
    shown.append(max(size for path, size in figures.items() if path.match("figures/overview/*")))
    show(f"{len(sizes)} files, {sum(sizes.values()) / 1e6:.0f} MB, {len(figures)} figures")
    show(f"  overview: {shown[0] / 1e3:.0f} kB, with its figure, style and script {sum(shown) / 1e3:.0f} kB")
    for files in (pages, data, figures):
        largest = max(files, key=files.__getitem__)
        show(f"  largest {largest.suffix}: {largest}, {files[largest] / 1e3:.0f} kB")


def use_pages(report: Path, browser: str) -> None:
    """Print how long the largest page takes to load, and the table of features to appear and to answer."""
    from playwright.sync_api import sync_playwright

    largest = max(report.glob("*.html"), key=lambda page: page.stat().st_size)
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        shown = window.new_page()
        shown.goto(largest.as_uri())
        show(f"{largest.name} loaded after {shown.evaluate('performance.now()'):.0f} ms")
        shown.goto((report / "features.html").as_uri())
        shown.wait_for_function(TABLE)
        show(f"table of features there after {shown.evaluate('performance.now()'):.0f} ms")
        for name, use in USES.items():
            show(f"  {name}: {shown.evaluate(SHOWN % use):.0f} ms")
        window.close()


if __name__ == "__main__":
    main()
