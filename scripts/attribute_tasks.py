"""Measure the effect of every feature of a crosscoder on some tasks, at every checkpoint."""

import argparse

from chronocoder.attribution.job import add_job_flags, start_job
from chronocoder.command_line import run_script
from chronocoder.stores import provenance, write_store


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job_flags(parser)
    job = start_job(parser.parse_args())

    from accelerate import PartialState

    from chronocoder.attribution.attribute import measure_effects, measure_shuffled
    from chronocoder.attribution.summary import summarise_effects

    norms = job.crosscoder.decoder_norms.cpu().numpy()
    for output, task in job.tasks.items():
        measured = measure_effects(job.crosscoder, job.sites, task, job.settings, job.suite_pairs)
        shuffled = measure_shuffled(job.crosscoder, job.sites, task, job.settings, job.suite_pairs)
        if PartialState().is_main_process:
            attribution = summarise_effects(measured, task, norms, job.tokens_seen, job.settings, shuffled)
            write_store(attribution, output, provenance(job.settings, **job.facts(task)))


if __name__ == "__main__":
    run_script(main)
