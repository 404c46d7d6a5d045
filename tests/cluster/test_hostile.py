"""The executor under conditions that work against it, as an ordinary user: nothing runs twice, nothing is lost."""

from collections.abc import Callable

from private_slurm import PrivateSlurm
from small_workflow import SmallWorkflow

Ordinary = Callable[[str], SmallWorkflow]

# What users and sites set in their environments; only the partition is to be heeded.
ENVIRONMENT = {
    **{"SBATCH_ARRAY_INX": "0-1", "SBATCH_EXPORT": "NONE", "SBATCH_NO_REQUEUE": "1", "SBATCH_OUTPUT": "/dev/null"},
    **{"SBATCH_PARTITION": "hidden", "SBATCH_SIGNAL": "USR1@5", "SBATCH_TIMELIMIT": "1", "SBATCH_WAIT": "1"},
    **{"SLURM_EXPORT_ENV": "NONE", "SLURM_TIMELIMIT": "1", "SRUN_EXPORT_ENV": "NONE"},
    **{"SQUEUE_STATES": "PENDING", "SQUEUE_PARTITION": "main", "SQUEUE_USERS": "root", "SQUEUE_SORT": "i"},
    **{"SACCT_FEDERATION": "1", "SLURM_TIME_FORMAT": "relative", "SLURM_BITSTR_LEN": "1"},
    **{"SCANCEL_STATE": "PENDING", "SCONTROL_LOCAL": "1"},
}


def test_neither_hidden_partitions_nor_the_environment_make_jobs_run_twice(ordinary: Ordinary) -> None:
    workflow = ordinary(
        """
rule all:
    input: expand("out/{i}", i=range(3)), "single"
rule like:
    output: "out/{i}"
    retries: 2
    shell: "echo {wildcards.i} >> begun; sleep 6; echo {wildcards.i} >> ended; touch {output}"
rule single:
    output: "single"
    retries: 2
    shell: "echo single >> begun; sleep 6; echo single >> ended; touch {output}"
"""
    )
    workflow.environment |= ENVIRONMENT
    said = workflow.run("--latency-wait", "1")
    assert sorted(workflow.lines("begun")) == ["0", "1", "2", "single"], said
    assert sorted(workflow.lines("ended")) == ["0", "1", "2", "single"], said
    jobs = workflow.jobs("User", "Partition", "TimelimitRaw", "State")
    assert jobs == [["nobody", "hidden", "5", "COMPLETED"]] * 4


def test_a_lost_answer_and_an_absent_controller_cost_no_attempt(ordinary: Ordinary, cluster: PrivateSlurm) -> None:
    workflow = ordinary(
        """
localrules: first, beside
rule all:
    input: expand("out/{i}", i=range(3)), "early", "beside"
rule early:
    output: "early"
    shell: "echo early >> begun; while [ ! -e go ]; do sleep 0.2; done; touch {output}"
rule first:
    output: "first"
    shell: "while [ ! -e down ]; do sleep 0.2; done; touch {output}"
rule beside:
    input: "first"
    output: "beside"
    shell: "sleep 5; touch {output}"
rule late:
    input: "first"
    output: "out/{i}"
    shell: "echo {wildcards.i} >> begun; touch {output}"
"""
    )
    lost = "touch lost; $real > answer; echo 'Socket timed out on send/recv operation' >&2; exit 1"
    workflow.replace("sbatch", f'real="env PATH=${{PATH#*:}} sbatch $*"; [ -e lost ] || {{ {lost}; }}; exec $real')
    process = workflow.start()
    workflow.wait_lines("begun")
    cluster.stop_controller()
    try:
        (workflow.directory / "down").touch()
        cluster.wait_until((workflow.directory / "beside").exists, "local rules go on", 60)
    finally:
        cluster.start_controller()
    (workflow.directory / "go").touch()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert sorted(workflow.lines("begun")) == ["0", "1", "2", "early"]
    ends = sorted((name, state.split()[0]) for name, state in workflow.jobs("JobName", "State"))
    assert ends == [("early", "CANCELLED"), ("early", "COMPLETED"), *[("late", "COMPLETED")] * 3]
    assert said.count("The scheduler does not answer (") == said.count("The scheduler answers again, after ") == 2
