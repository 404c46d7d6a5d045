"""Finding again what an earlier call of Snakemake submitted."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from time import time

from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.schedulers import ACTIVE
from snakemake_executor_plugin_submitit.submission import Submitter

_BEGAN = time()  # Snakemake loads its plugins before it looks at what is to be done


def jobs_left(
    journal: Journal, outcomes: Outcomes, submitter: Submitter, states: Callable[[Iterable[str]], dict[str, str]]
) -> dict[str, Entry]:
    """Return the jobs of an earlier call that run, or ran when this one began; forget the others.

    Args:
        journal: what that call noted.
        outcomes: what the jobs said themselves.
        submitter: cancels what that call was about to submit when it died.
        states: tells how jobs stand, as `Scheduler.states` does.

    Returns:
        Entries by their keys.

    Raises:
        WorkflowError: the scheduler does not say what became of jobs that were being submitted.
    """
    entries = [_numbered(entry, outcomes) for entry in journal.entries()]
    known = states(entry.job_id for entry in entries if entry.job_id)
    left = {}
    for entry in entries:
        outcome = outcomes.read(entry.token)
        ended = outcome is not None and outcome.ended
        if ended_meanwhile(outcome) or (not ended and known.get(entry.job_id) == ACTIVE):
            left[entry.key] = entry
        else:
            journal.forget(entry)
    for name in {entry.submission for entry in entries if not entry.job_id}:
        submitter.discard(name, {entry.job_id for entry in left.values()})
    return left


def ended_meanwhile(outcome: Outcome | None) -> bool:
    """Say whether a job ended well since this process began; before, Snakemake knows itself what is to be redone."""
    return outcome is not None and outcome.state == "done" and outcome.started + outcome.seconds > _BEGAN


def _numbered(entry: Entry, outcomes: Outcomes) -> Entry:
    """Return an entry with its job number, which a call that died while it submitted did not write."""
    if entry.job_id or (outcome := outcomes.read(entry.token)) is None:
        return entry
    return replace(entry, job_id=outcome.job_id)
