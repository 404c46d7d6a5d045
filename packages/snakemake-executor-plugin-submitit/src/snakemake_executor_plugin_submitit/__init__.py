"""Snakemake's jobs as submitit's jobs: on a SLURM cluster, on this machine, or in this process."""

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit.executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False, pass_group_args=True
)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """What a profile may set, each key with `submitit-` before it."""

    cluster: str = field(
        default="slurm",
        metadata={"help": "Where jobs run: slurm, local (processes of this machine) or debug (one after another)."},
    )
    folder: str = field(
        default=".snakemake/submitit",
        metadata={"help": "Directory, shared with the nodes, for logs and for what is known of submitted jobs."},
    )
    array_limit: int = field(default=256, metadata={"help": "How many jobs of one job array may run at once."})
    requeues: int = field(
        default=20,
        metadata={"help": "How often a job may be queued again after preemption, a time-out or the loss of its node."},
    )
    signal_delay: int = field(
        default=120,
        metadata={"help": "Seconds before the time limit at which a job is told to save its state."},
    )
    pending_grace: int = field(
        default=600,
        metadata={
            "help": "Seconds for which SLURM must say that a job can never start before it is cancelled and fails."
        },
    )
    setup: str = field(
        default="", metadata={"help": "Shell command to run in each SLURM job first, for instance to load a module."}
    )
    no_gpus: bool = field(default=False, metadata={"help": "Ask for no GPUs, whatever the rules say."})
    on_interrupt: str = field(
        default="detach",
        metadata={"help": "What Ctrl-C does to jobs: detach (they go on; the same call finds them again) or cancel."},
    )
    max_outage: int = field(
        default=30,
        metadata={"help": "Minutes that submissions wait for a scheduler that does not answer, before they fail."},
    )
