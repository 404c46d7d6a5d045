"""Measure the effect of every feature of a crosscoder on a task, at every checkpoint."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from chronocoder.sharing import Tasks, run_shared

if TYPE_CHECKING:
    import xarray as xr


def main(tasks: Tasks) -> None:
    """Read the arguments, measure, write."""
    from chronocoder.attribution.job import Result, add_job_flags, pairs_of, start_job

    parser = argparse.ArgumentParser(description=__doc__)
    add_job_flags(parser)
    parser.add_argument(
        "--suite-pairs",
        type=int,
        help="pairs of all tasks of the suite, by which `auto` chooses; by default those of the given tasks",
    )
    arguments = parser.parse_args()
    suite_pairs = arguments.suite_pairs or pairs_of(arguments.tasks)
    job = start_job(arguments, tasks)

    from chronocoder.attribution.attribute import measure_effects, measure_shuffled
    from chronocoder.attribution.summary import summarise_effects

    norms = job.crosscoder.decoder_norms.cpu().numpy()

    def attribute(_: Path, task: "xr.Dataset") -> Result | None:
        measured = measure_effects(job.crosscoder, job.sites, task, job.settings, suite_pairs)
        shuffled = measure_shuffled(job.crosscoder, job.sites, task, job.settings, suite_pairs)
        if not job.writes:
            return None
        attribution = summarise_effects(measured, task, norms, job.tokens_seen, job.settings, shuffled)
        return Result(attribution, job.settings, job.facts(task))

    job.work(attribute)


if __name__ == "__main__":
    run_shared(main)
