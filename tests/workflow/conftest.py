"""A small experiment that many tests look at."""

import pytest

from experiments import NURSERY, Workflow


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return a small nursery experiment that has been run to its report."""
    workflow = Workflow(tmp_path_factory.mktemp("nursery"), NURSERY)
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    return workflow
