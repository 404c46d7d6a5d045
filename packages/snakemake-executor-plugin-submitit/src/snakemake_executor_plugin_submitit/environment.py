"""What a user's environment may say to SLURM, and what it may not: docs/cluster.md has a table."""

import logging
import os

_READ_BY_SLURM = ("SACCT_", "SALLOC_", "SBATCH_", "SCANCEL_", "SCONTROL_", "SINFO_", "SLURM_", "SQUEUE_", "SRUN_")
_KEPT = ("SLURM_CONF", "SLURM_JWT", "SLURM_MPI_TYPE", "SLURM_SACK_", "SLURM_UMASK")
_DEFAULTS = {
    f"SBATCH_{option.replace('-', '_').upper()}": option
    for option in (
        *("account", "acctg-freq", "constraint", "delay-boot", "network"),
        *("partition", "qos", "reservation", "wckey"),
    )
}


def take_defaults(logger: logging.Logger) -> dict[str, str]:
    """Drop from the environment what would change what SLURM's commands mean, here and in the jobs.

    That is all that they read there, limits of an allocation that this process runs in too, but what finds the cluster.

    Args:
        logger: told what is dropped, unless it belongs to an allocation.

    Returns:
        Options of sbatch, by name, for jobs that say nothing else: those that a site needs.
    """
    allocated = "SLURM_JOB_ID" in os.environ
    found = [name for name in os.environ if name.startswith(_READ_BY_SLURM) and not name.startswith(_KEPT)]
    values = {name: os.environ.pop(name) for name in found}
    untold = {*_DEFAULTS, "SLURM_BITSTR_LEN"}
    if told := sorted(name for name in values if name not in untold and not (allocated and name.startswith("SLURM_"))):
        logger.info(f"Not passed on to SLURM's commands and jobs: {', '.join(told)}")
    os.environ["SLURM_BITSTR_LEN"] = "0"  # sacct else cuts off the numbers of an array
    return {option: values[name] for name, option in _DEFAULTS.items() if values.get(name)}
