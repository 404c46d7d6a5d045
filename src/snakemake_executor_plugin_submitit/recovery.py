"""Finding again what an earlier call of Snakemake submitted."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outcome import Outcomes
from snakemake_executor_plugin_submitit.schedulers import ACTIVE
from snakemake_executor_plugin_submitit.submission import Submitter


def jobs_left(
    journal: Journal, outcomes: Outcomes, submitter: Submitter, states: Callable[[Iterable[str]], dict[str, str]]
) -> dict[str, Entry]:
    """Return the jobs of an earlier call that run or have ended well; forget the others, as if never submitted.

    Args:
        journal: what that call noted.
        outcomes: what the jobs said themselves.
        submitter: cancels what that call was about to submit when it died.
        states: tells how jobs stand, as `Scheduler.states` does.

    Returns:
        Entries by their keys.
    """
    entries = [_numbered(entry, outcomes) for entry in journal.entries()]
    known = states(entry.job_id for entry in entries if entry.job_id)
    left = {}
    for entry in entries:
        outcome = outcomes.read(entry.token)
        runs = known.get(entry.job_id) == ACTIVE and not (outcome is not None and outcome.ended)
        if runs or (outcome is not None and outcome.state == "done"):
            left[entry.key] = entry
        else:
            journal.forget(entry)
            outcomes.forget(entry.token)
    for name in {entry.submission for entry in entries if not entry.job_id}:
        submitter.discard(name, {entry.job_id for entry in left.values()})
    return left


def _numbered(entry: Entry, outcomes: Outcomes) -> Entry:
    """Return an entry with its job number, which a call that died while it submitted did not write."""
    if entry.job_id or (outcome := outcomes.read(entry.token)) is None:
        return entry
    return replace(entry, job_id=outcome.job_id)
