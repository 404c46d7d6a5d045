"""Cancel the jobs that a Snakemake call left running: `python -m snakemake_executor_plugin_submitit cancel`."""

import argparse
import logging
import sys
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.recovery import cancel_left
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, scheduler_of


def cancel(folder: Path, logger: logging.Logger) -> None:
    """Cancel the jobs noted in a folder, and no others.

    Args:
        folder: what `submitit-folder` is set to.
        logger: told how many they were.

    Raises:
        WorkflowError: there is no such folder, or a Snakemake process tends the jobs.
        NoAnswerError: the scheduler cannot be asked; nothing is forgotten.
    """
    if not (folder / "jobs").is_dir():
        raise WorkflowError(f"{folder}: no such folder of jobs; give what submitit-folder is set to with --folder")
    journal = Journal(folder)
    journal.lock(logger)
    clusters = {entry.cluster for entry in journal.entries()}
    count = sum(cancel_left(journal, scheduler_of(cluster, logger), cluster) for cluster in sorted(clusters))
    journal.unlock()
    logger.info("%d jobs cancelled", count)


def main() -> None:
    """Read the arguments and cancel."""
    parser = argparse.ArgumentParser(prog="python -m snakemake_executor_plugin_submitit", description=__doc__)
    parser.add_argument("command", choices=["cancel"])
    parser.add_argument(
        "--folder", type=Path, default=Path(".snakemake/submitit"), help="what submitit-folder is set to"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        cancel(arguments.folder, logging.getLogger("submitit"))
    except (WorkflowError, NoAnswerError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
