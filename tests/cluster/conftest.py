"""A SLURM for the tests that need a real one, and workflows that run on it."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from private_slurm import PrivateSlurm
from small_workflow import SmallWorkflow

from experiments import NURSERY, ROOT, Workflow

PROFILE = ("--profile", str(ROOT / "slurm"), "--seconds-between-status-checks", "1", "--latency-wait", "5")
USER = "nobody"  # an ordinary user, whom SLURM does not show everything as it does root


@pytest.fixture(scope="session")
def slurm() -> Iterator[PrivateSlurm]:
    """Two nodes of two GPUs each, which all tests of the session share."""
    if missing := PrivateSlurm.missing():
        needs = "the tests need slurmctld, slurmd, slurmdbd, munge and MariaDB, and root"
        if os.environ.get("CHRONOCODER_NEEDS_SLURM"):
            pytest.fail(f"{', '.join(missing)} missing; {needs}")
        pytest.skip(f"no SLURM on this machine: {', '.join(missing)} missing; {needs}")
    # Processes of the tests that bring up a SLURM each do so in turn: installing a database bears no company.
    turn = (Path(tempfile.gettempdir()) / "private-slurm.lock").open("w")
    fcntl.flock(turn, fcntl.LOCK_EX)
    with (
        turn,
        tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as directory,
        PrivateSlurm(Path(directory)) as started,
    ):
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield started


@pytest.fixture
def cluster(slurm: PrivateSlurm) -> Iterator[PrivateSlurm]:
    """The SLURM without jobs, before and after."""
    slurm.wait_idle()
    yield slurm
    slurm.run("scancel", "--user=root")
    slurm.run("scancel", f"--user={USER}")
    slurm.wait_idle()


@pytest.fixture(scope="session")
def embedded(slurm: PrivateSlurm, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The embedded experiment, reduced, run by `snakemake --profile slurm` to its report."""
    workflow = Workflow(tmp_path_factory.mktemp("embedded"), NURSERY, PROFILE, slurm.environment)
    workflow.config = workflow.changed("suites.small.comparisons", {"pair": {"checkpoints": ["step0", "step8"]}})
    del workflow.config["variants"]["batchtopk"]
    workflow.config = workflow.changed("attribution_jobs", {"tasks_per_job": 2})
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    return workflow


@pytest.fixture
def small(cluster: PrivateSlurm, tmp_path: Path) -> Callable[[str], SmallWorkflow]:
    """Return a function that makes a workflow of its own from a Snakefile's text."""
    return lambda text: SmallWorkflow(tmp_path, text, cluster)


@pytest.fixture
def ordinary(cluster: PrivateSlurm) -> Iterator[Callable[[str], SmallWorkflow]]:
    """Return a function that makes a workflow of an ordinary user from a Snakefile's text."""
    with tempfile.TemporaryDirectory(prefix="workflow-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield lambda text: SmallWorkflow(Path(directory), text, cluster, USER)
