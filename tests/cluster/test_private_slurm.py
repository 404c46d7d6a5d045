"""The private SLURM does what a cluster does: it runs, accounts and limits; the executor's tests show the rest."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import private_slurm
import psutil
import pytest
from private_slurm import PrivateSlurm

# twice the limit and kept, because memory is only looked at every second
HOG = "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(60)"


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as directory:
        yield Path(directory)


def submit(slurm: PrivateSlurm, place: Path, script: str, *options: str) -> str:
    out = ["--output=out", "--open-mode=append", f"--chdir={place}"]
    return slurm.run("sbatch", "--parsable", *out, *options, f"--wrap={script}").strip()


def wait_state(slurm: PrivateSlurm, job: str, state: str, seconds: float = 30) -> None:
    slurm.wait_until(lambda: slurm.job_state(job) == state, f"job {job} is {state}", seconds)


def accounted(slurm: PrivateSlurm, job: str, *options: str) -> list[str]:
    return slurm.run("sacct", "--noheader", "--parsable2", f"--jobs={job}", "--format=State", *options).split("\n")[:-1]


def wait_accounted(slurm: PrivateSlurm, job: str, *states: str) -> None:
    expected = sorted(states)
    slurm.wait_until(lambda: sorted(accounted(slurm, job, "--allocations", "--duplicates")) == expected, job, 30)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def processes_of(text: str) -> list[str]:
    """Return the other processes with this text in their command, their environment or their open files' names."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            said = [*process.cmdline(), *process.environ().values(), *(each.path for each in process.open_files())]
            if process.pid != os.getpid() and any(text in each for each in said):
                found.append(str(process))
    return found


def test_accounts_a_job_array(cluster: PrivateSlurm, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "echo $SLURM_ARRAY_TASK_ID >> $SLURM_ARRAY_TASK_ID.ran", "--array=1-2")
    wait_accounted(cluster, job, "COMPLETED", "COMPLETED")
    assert sorted(path.name for path in tmp_path.glob("*.ran")) == ["1.ran", "2.ran"]


def test_gives_two_nodes_with_two_gpus_each(cluster: PrivateSlurm, tmp_path: Path) -> None:
    step = "srun --overlap --nodes=2 --ntasks-per-node=1 sh -c 'echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'"
    job = submit(cluster, tmp_path, f"{step}; {step}", "--nodes=2", "--gpus-per-node=2")
    wait_accounted(cluster, job, "COMPLETED")
    assert sorted(lines(tmp_path / "out")) == ["node1 0,1"] * 2 + ["node2 0,1"] * 2


def test_a_gpu_belongs_to_one_job(cluster: PrivateSlurm, tmp_path: Path) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES >> gpus; sleep 600"
    first, second, third = (submit(cluster, tmp_path, script, "--gpus=1", "--nodelist=node1") for _ in range(3))
    cluster.wait_until(lambda: sorted(lines(tmp_path / "gpus")) == ["0", "1"], "two jobs have a GPU each", 30)
    assert [cluster.job_state(job) for job in (first, second, third)] == ["RUNNING", "RUNNING", "PENDING"]


def test_kills_a_job_above_its_memory(cluster: PrivateSlurm, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, f'python3 -c "{HOG}"', "--mem=200")
    wait_accounted(cluster, job, "FAILED")  # and not OUT_OF_MEMORY, which SLURM only knows from control groups
    assert "exceeded memory limit" in (tmp_path / "out").read_text()


def test_leaves_no_process(slurm: PrivateSlurm, short_path: Path) -> None:
    with PrivateSlurm(short_path, nodes=1, gpus=()) as other:
        job = submit(other, short_path, "setsid sleep 600 & srun sleep 600")
        wait_state(other, job, "RUNNING")
        assert processes_of(str(short_path))
    assert not processes_of(str(short_path))
    assert slurm.node_state("node1") == "idle"


def test_says_why_it_does_not_start_and_leaves_no_process(
    slurm: PrivateSlurm, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = private_slurm.SLURM_CONF.replace("SelectType=select/cons_tres", "SelectType=select/unheard_of")
    monkeypatch.setattr(private_slurm, "SLURM_CONF", wrong)
    with pytest.raises(RuntimeError, match=r"ended with 1[\s\S]*unheard_of"), PrivateSlurm(short_path):
        pass
    assert not processes_of(str(short_path))
