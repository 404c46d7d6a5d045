"""Cancel the jobs that a Snakemake call left running: `python -m snakemake_executor_plugin_submitit cancel`."""

import argparse
import logging
import sys
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.outcome import Outcomes
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
    journal, outcomes = Journal(folder), Outcomes(folder / "outcomes")
    journal.lock()
    entries = journal.entries()
    for cluster in {entry.cluster for entry in entries}:
        numbers = {entry.job_id for entry in entries if entry.cluster == cluster and entry.job_id}
        scheduler = scheduler_of(cluster, logger)
        for submission in {entry.submission for entry in entries if entry.cluster == cluster and not entry.job_id}:
            numbers.update(scheduler.submitted_as(submission))
        scheduler.cancel(sorted(numbers))
    for entry in entries:
        journal.forget(entry)
        outcomes.forget(entry.token)
    journal.unlock()
    logger.info("%d jobs cancelled", len(entries))


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
