"""Finding again, or cancelling, what an earlier call of Snakemake submitted."""

from dataclasses import replace
from functools import partial
from time import time

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outage import Outage
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.schedulers import ACTIVE, Scheduler, end_jobs

_BEGAN = time()  # Snakemake loads its plugins before it looks at what is to be done
_AWAITED = (ACTIVE, "COMPLETED")  # a shared file system may not show yet what a job wrote at its end


def jobs_left(journal: Journal, outcomes: Outcomes, scheduler: Scheduler, outage: Outage) -> dict[str, Entry]:
    """Return the jobs of an earlier call that run, or ran when this one began; forget the others.

    Args:
        journal: what that call noted.
        outcomes: what the jobs said themselves.
        scheduler: tells how jobs stand, and cancels what that call was about to submit when it died.
        outage: waits for the scheduler where it does not answer.

    Returns:
        Entries by their keys.

    Raises:
        WorkflowError: the scheduler does not say what became of the jobs; nothing is forgotten.
    """
    begun = set(outcomes.tokens())
    entries = [_numbered(entry, outcomes) for entry in journal.entries()]
    for name in {entry.submission for entry in entries if not entry.job_id and entry.token not in begun}:
        outage.endure(partial(_end_submission, scheduler, name))
    known = outage.endure(partial(scheduler.states, {entry.job_id for entry in entries if entry.job_id}))
    left = {}
    for entry in entries:
        outcome = outcomes.read(entry.token)
        ended = outcome is not None and outcome.ended
        if ended_meanwhile(outcome) or (not ended and known.get(entry.job_id) in _AWAITED):
            left[entry.key] = entry
        else:
            journal.forget(entry)
    return left


def check_cluster(journal: Journal, cluster: str) -> None:
    """Check that the jobs of an earlier call went where jobs go now.

    Raises:
        WorkflowError: they did not, so that their scheduler is another.
    """
    if others := {entry.cluster for entry in journal.entries()} - {cluster}:
        raise WorkflowError(
            f"submitit-cluster {cluster}: an earlier call left jobs on {', '.join(sorted(others))}; let them end with"
            " submitit-cluster as it was, or cancel them: python -m snakemake_executor_plugin_submitit cancel"
        )


def cancel_left(journal: Journal, scheduler: Scheduler, cluster: str) -> int:
    """Cancel all jobs that the journal has for a cluster, those being submitted too, and no others.

    Returns:
        How many they are.

    Raises:
        NoAnswerError: the scheduler does not answer; nothing is forgotten.
    """
    entries = [entry for entry in journal.entries() if entry.cluster == cluster]
    numbers = {entry.job_id for entry in entries if entry.job_id}
    for name in {entry.submission for entry in entries if not entry.job_id}:
        numbers.update(scheduler.submitted_as(name))
    end_jobs(scheduler, sorted(numbers))
    for entry in entries:
        journal.forget(entry)
    return len(entries)


def ended_meanwhile(outcome: Outcome | None) -> bool:
    """Say whether a job ended well since this process began; before, Snakemake knows itself what is to be redone."""
    return outcome is not None and outcome.state == "done" and outcome.started + outcome.seconds > _BEGAN


def _end_submission(scheduler: Scheduler, name: str) -> None:
    end_jobs(scheduler, scheduler.submitted_as(name))


def _numbered(entry: Entry, outcomes: Outcomes) -> Entry:
    """Return an entry with its job number, which a call that died while it submitted did not write."""
    if entry.job_id or (outcome := outcomes.read(entry.token)) is None:
        return entry
    return replace(entry, job_id=outcome.job_id)
