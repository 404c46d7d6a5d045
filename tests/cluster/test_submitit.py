"""The executor on a real SLURM: arrays, packs, restarts, failures."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from private_slurm import PrivateSlurm
from small_workflow import SmallWorkflow

Small = Callable[[str], SmallWorkflow]

# A job that keeps a state: it counts a number each second, and goes on from where it was told to save.
COUNTER = """
import pathlib, signal, sys, time
state, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
state.mkdir(exist_ok=True)
number = max((int(path.name) for path in state.iterdir()), default=0)
with open("starts", "a") as starts:
    starts.write(f"{number}\\n")
def save(*_):
    (state / str(number)).touch()
    sys.exit(1)
signal.signal(signal.SIGUSR2, save)
signal.signal(signal.SIGTERM, save)
limit = int(sys.argv[3])
while number < limit:
    time.sleep(1)
    number += 1
    with open("ticks", "a") as ticks:
        ticks.write(f"{number}\\n")
output.write_text(str(number))
"""


def test_ready_jobs_of_one_rule_are_one_array_of_limited_width(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: expand("out/{i}", i=range(6)), "other"
rule like:
    output: "out/{i}"
    shell: "echo + >> running; sleep 2; echo - >> running; touch {output}"
rule other:
    output: "other"
    shell: "touch {output}"
"""
    )
    said = workflow.run("--submitit-array-limit", "2")
    jobs = workflow.jobs("JobID", "JobName", "State")
    arrays = Counter(number.split("_")[0] for number, name, _ in jobs if name == "like")
    assert list(arrays.values()) == [6]
    assert {state for *_, state in jobs} == {"COMPLETED"}
    assert [("_" in number, name) for number, name, _ in jobs if name == "other"] == [(False, "other")]
    assert re.search(r"^like +6 +5 min .* 500 MB", said, re.MULTILINE), said
    running = [0]
    for line in workflow.lines("running"):
        running.append(running[-1] + (1 if line == "+" else -1))
    assert max(running) == 2


def test_a_pack_asks_for_the_most_and_its_members_fail_alone(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: expand("out/{i}", i=range(4))
rule short:
    output: "out/{i}"
    resources:
        pack=10,
        mem_mb=lambda wildcards: 500 + 100 * int(wildcards.i),
        runtime=lambda wildcards: 5 + int(wildcards.i)
    shell: "echo {wildcards.i} to the log; test {wildcards.i} != 2 && touch {output}"
"""
    )
    said = workflow.run("--keep-going", status=1)
    assert workflow.jobs("AllocCPUS", "ReqMem", "TimelimitRaw", "JobName") == [["1", "800M", "8", "short"]]
    assert sorted(path.name for path in (workflow.directory / "out").iterdir()) == ["0", "1", "3"]
    assert said.count("external_jobid:") == 1
    assert "its command ended with status 1" in said
    (log,) = re.findall(r"The end of (\S+\.log):", said)
    assert "2 to the log" in Path(log).read_text()
    assert "2 to the log" in said


def test_two_hundred_tiny_jobs_are_few_submissions(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: expand("out/{i}", i=range(200))
rule tiny:
    output: "out/{i}"
    resources: pack=50
    shell: "touch {output}"
"""
    )
    asked = _counted(workflow)
    workflow.run("--seconds-between-status-checks", "5")
    calls = Counter(Path(line.split()[0]).name for line in asked.read_text().splitlines())
    assert len(workflow.jobs("JobID")) == 4
    assert calls["sbatch"] == 1
    seconds = _seconds(workflow)
    assert calls["sacct"] <= seconds / 5 + 3  # one question a look, and one for the table
    assert calls["squeue"] <= seconds / 5 + 3


def test_memory_that_is_not_enough_is_doubled_by_a_retry(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: "out"
rule hungry:
    output: "out"
    retries: 1
    resources: mem_mb=lambda wildcards, attempt: 300 * attempt
    shell:
        "python -c 'x = bytearray(250 << 20); x[::4096] = bytes([1]) * len(x[::4096]); import time; time.sleep(4)'"
        " && touch {output}"
"""
    )
    said = workflow.run()
    assert "needed more than the 300 MB it had asked for; raise its resource mem_mb" in said
    assert [row[0] for row in workflow.jobs("ReqMem")] == ["300M", "600M"]


def test_a_time_out_is_resumed_and_without_progress_a_failure(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: "out", "stuck"
rule count:
    output: "out"
    resources: runtime=2, state="count.state"
    shell: "python counter.py count.state {output} 100"
rule stuck:
    output: "stuck"
    resources: runtime=2, state="nothing"
    shell: "sleep 300"
"""
    )
    (workflow.directory / "counter.py").write_text(COUNTER)
    said = workflow.run("--keep-going", status=1)
    assert (workflow.directory / "out").read_text() == "100"
    starts = [int(line) for line in workflow.lines("starts")]
    assert len(starts) == 2
    assert 0 == starts[0] < starts[1] < 100
    assert "ran out of its time limit of 2 min without progress: nothing is as it was; raise its resource" in said
    assert len(workflow.jobs("JobID")) == 2  # queued again, not submitted again


def test_a_killed_controller_finds_its_jobs_again(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: expand("out/{i}", i=range(4)), "last"
rule quick:
    output: "out/{i}"
    resources: pack=lambda wildcards: 1 + int(wildcards.i) % 2
    shell: "echo {wildcards.i} >> ran; sleep {wildcards.i}; touch {output}; echo {wildcards.i} >> ended"
rule slow:
    output: "slow"
    shell: "echo slow >> ran; sleep 15; touch {output}"
rule last:
    input: "slow"
    output: "last"
    shell: "echo last >> ran; touch {output}"
"""
    )
    process = workflow.start()
    workflow.wait_lines("ran", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    workflow.wait_lines("ended", 4)
    said = workflow.run()
    assert sorted(workflow.lines("ran")) == ["0", "1", "2", "3", "last", "slow"]
    assert "Found again: slow is job" in said


def test_ctrl_c_leaves_jobs_and_cancel_ends_these_alone(small: Small, cluster: PrivateSlurm) -> None:
    workflow = small(
        """
rule all:
    input: expand("out/{i}", i=range(3))
rule long:
    output: "out/{i}"
    shell: "echo {wildcards.i} >> ran; sleep 600; touch {output}"
"""
    )
    other = cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600").strip()
    process = workflow.start()
    workflow.wait_lines("ran", 3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "3 submitted jobs go on. The same command finds them again; to cancel them:" in said
    assert "does not yet show the end" not in said  # of jobs that go on
    numbers = workflow.job_numbers()
    assert [cluster.job_state(number) for number in numbers] == ["RUNNING"] * 3
    command = [sys.executable, "-m", "snakemake_executor_plugin_submitit", "cancel"]
    subprocess.run(command, cwd=workflow.directory, env=workflow.environment, check=True)
    cluster.wait_until(lambda: {cluster.job_state(number) for number in numbers} == {"CANCELLED"}, "cancelled", 30)
    assert cluster.job_state(other) == "RUNNING"
    assert workflow.job_numbers() == []


def test_ctrl_c_cancels_where_the_profile_says_so(small: Small, cluster: PrivateSlurm) -> None:
    workflow = small('rule long:\n    output: "out"\n    shell: "touch ran; echo 1 >> ran; sleep 600"\n')
    other = cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600").strip()
    process = workflow.start("--submitit-on-interrupt", "cancel")
    workflow.wait_lines("ran")
    (number,) = workflow.job_numbers()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    cluster.wait_until(lambda: cluster.job_state(number) == "CANCELLED", "cancelled", 30)
    assert cluster.job_state(other) == "RUNNING"


def test_a_job_survives_the_loss_of_its_node(small: Small, cluster: PrivateSlurm) -> None:
    workflow = small(
        """
rule once:
    output: "out"
    shell: "echo $SLURMD_NODENAME >> ran; test $(wc -l < ran) = 2 || sleep 600; touch {output}"
"""
    )
    process = workflow.start()
    workflow.wait_lines("ran")
    (first,) = workflow.lines("ran")
    cluster.stop_node(first)
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        cluster.start_node(first)
    assert process.returncode == 0, said
    assert set(workflow.lines("ran")) == {"node1", "node2"}
    assert len(workflow.jobs("JobID")) == 1


def test_a_cancelled_job_is_a_failure_that_says_so(small: Small, cluster: PrivateSlurm) -> None:
    workflow = small('rule long:\n    output: "out"\n    shell: "echo 1 >> ran; sleep 600"\n')
    process = workflow.start()
    workflow.wait_lines("ran")
    cluster.run("scancel", *workflow.job_numbers())
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"Job \d+ was cancelled, by you or by the site", said)


def test_what_ended_a_job_is_known_without_accounting(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: "good", "bad"
rule good:
    output: "good"
    shell: "sleep 3; touch {output}"
rule bad:
    output: "bad"
    shell: "kill -9 $(ps -o ppid= -p $PPID) $PPID"
"""
    )
    workflow.replace("sacct", "echo 'accounting is disabled' >&2; exit 1")
    said = workflow.run("--keep-going", status=1)
    assert (workflow.directory / "good").exists()
    assert re.search(r"Job \d+ was ended by the scheduler \(FAILED\)", said), said


def test_a_scheduler_that_refuses_is_quoted(small: Small) -> None:
    workflow = small('rule one:\n    output: "out"\n    resources: partition="unheard"\n    shell: "touch {output}"\n')
    said = workflow.run(status=1)
    assert "It could not be submitted" in said
    assert "invalid partition specified: unheard" in said


def _counted(workflow: SmallWorkflow) -> Path:
    """Have each call of SLURM's commands noted in a file."""
    calls = workflow.directory / "calls"
    for program in ("sbatch", "sacct", "squeue", "scancel", "scontrol"):
        workflow.replace(program, f'echo {program} >> {calls}; PATH=${{PATH#*:}} exec {program} "$@"')
    return calls


def _seconds(workflow: SmallWorkflow) -> float:
    """Return how long the jobs of a workflow took from first to last."""
    times = [(workflow.directory / "out" / str(number)).stat().st_mtime for number in range(200)]
    return max(times) - min(times)


def test_types_of_gpus_slices_and_tasks_are_those_of_slurm(small: Small) -> None:
    workflow = small(
        """
rule all:
    input: "typed", "slice", "model", "ranks"
rule typed:
    output: "typed"
    resources: gpus="a100:1,1g.5gb:1", extra="wckey='of a course' nice=1"
    shell: "echo $CUDA_VISIBLE_DEVICES > {output}"
rule slice:
    output: "slice"
    resources: gres="gpu:1g.5gb:1"
    shell: "echo $CUDA_VISIBLE_DEVICES > {output}"
rule model:
    output: "model"
    resources: gpu_model="a100", gpu=1
    shell: "echo $CUDA_VISIBLE_DEVICES > {output}"
rule ranks:
    output: "ranks"
    threads: 2
    resources: tasks=4, nodes=2
    shell: "echo once >> runs; srun -n {resources.tasks} bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID' > {output}"
"""
    )
    workflow.run()
    assert [workflow.lines(name) for name in ("typed", "slice", "model")] == [["0,1"], ["1"], ["0"]]
    ranks = sorted(line.split() for line in workflow.lines("ranks"))
    assert Counter(node for node, _ in ranks) == {"node1": 2, "node2": 2}
    assert sorted(rank for _, rank in ranks) == ["0", "1", "2", "3"]
    assert workflow.lines("runs") == ["once"]
    assert ["ranks", "8"] in workflow.jobs("JobName", "AllocCPUS")


def test_what_can_never_start_fails_and_what_waits_for_a_drained_node_does_not(
    ordinary: Small, cluster: PrivateSlurm
) -> None:
    workflow = ordinary(
        """
rule all:
    input: "large", "huge", "wide"
rule large:
    output: "large"
    resources: cpus=40
    shell: "touch {output}"
rule huge:
    output: "huge"
    resources: mem_mb=100000000
    shell: "touch {output}"
rule wide:
    output: "wide"
    resources: nodes=2
    shell: "touch {output}"
"""
    )
    cluster.run("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    process = workflow.start("--keep-going", "--submitit-pending-grace", "2")
    states: dict[str, str] = {}

    def is_given_up() -> bool:
        states.update(tuple(row) for row in workflow.jobs("JobName", "State"))
        return states.get("large", "").startswith("CANCELLED")

    cluster.wait_until(is_given_up, "the job that can never start is cancelled")
    assert states["wide"] == "PENDING"
    cluster.run("scontrol", "update", "nodename=node2", "state=resume")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    text = " ".join(said.split())
    beyond = "it asks for more than partition main has"
    assert f"can never start, and was cancelled: PartitionConfig: {beyond}: cpus=40 (at most 8); lower that" in text
    assert "1 pending: PartitionConfig, can never start" in text or "1: PartitionConfig, can never start" in text
    assert "It could not be submitted: " in text
    assert f"{beyond}: mem_mb=100000000 (at most 64000); lower that, or choose another partition" in text
    assert (workflow.directory / "wide").exists()
