"""Change the features that matter most exactly, alone and in sets, on some tasks: the check on the attribution."""

import argparse
from pathlib import Path

from chronocoder.attribution.job import add_job_flags, start_job
from chronocoder.command_line import add_flags, from_flags, paired, run_script
from chronocoder.config import AblationSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attributions", type=Path, nargs="+", required=True, help="effects on the tasks, same order")
    parser.add_argument("--own-codes", type=Path, required=True, help="what makes own codes of the crosscoder")
    add_job_flags(parser)
    add_flags(parser, AblationSettings)
    arguments = parser.parse_args()
    ablation = from_flags(arguments, AblationSettings)
    attributions = {output: load_store(path) for output, path in paired(arguments, "outputs", "attributions").items()}
    own_codes_store = load_store(arguments.own_codes)
    job = start_job(arguments)
    for output, task in job.tasks.items():
        job.check_attribution(attributions[output], task)

    from accelerate import PartialState

    from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
    from chronocoder.crosscoder.own_codes import read_own_codes

    own_codes = read_own_codes(own_codes_store, job.crosscoder)
    for output, task in job.tasks.items():
        effects = attributions[output]
        measured = measure_ablations(job.crosscoder, job.sites, task, effects, job.settings, ablation, own_codes)
        if PartialState().is_main_process:
            summary = summarise_ablations(measured, task, effects, job.settings)
            facts = {**job.facts(task), "attribution_settings": job.settings.model_dump_json()}
            write_store(summary, output, provenance(ablation, **facts))


if __name__ == "__main__":
    run_script(main)
