"""The notebook runs from its first cell to its last, and is stored without what it printed."""

from pathlib import Path

import nbformat
import pytest
import xarray as xr
from notebook_cells import cells_of, run_cells
from report_stores import six_features, toy_inputs

from chronocoder.figures.chart import Chart
from chronocoder.stores import strings, write_store

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "read_stores.ipynb"
NAMES = {"near": "agreement_simple", "far": "agreement_across_prepositional_phrase"}


def renamed(store: xr.Dataset) -> xr.Dataset:
    """The same store with the names that the default experiment's tasks have."""
    if "task" not in store.coords:
        return store
    return store.assign_coords(task=strings([NAMES[name] for name in store["task"].values.tolist()]))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Toy stores where the default experiment has its own."""
    inputs = toy_inputs(six_features())
    (run,) = inputs.runs
    suite = tmp_path / "results" / "nursery"
    directory = suite / "abstraction" / "batchtopk" / "seed0"
    stores = {suite / "behaviour": inputs.behaviour, suite / "similarity": inputs.similarity}
    stores |= {directory / "relie": run.relie, directory / "features": run.features}
    stores |= {directory / "ablation" / NAMES[task]: ablation for task, ablation in run.ablations.items()}
    for path, store in stores.items():
        write_store(renamed(store), path.with_name(f"{path.name}.zarr"), store.attrs)
    return tmp_path


def test_notebook_is_valid_and_stored_without_results() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells_of(NOTEBOOK, "code"))


@pytest.mark.parametrize("directory", [".", "notebooks"])
def test_notebook_runs(results: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    (results / directory).mkdir(exist_ok=True)
    monkeypatch.chdir(results / directory)
    charts = [value for value in run_cells(NOTEBOOK) if isinstance(value, Chart)]
    assert len(charts) == 6 and all("<svg" in chart._repr_svg_() for chart in charts)
