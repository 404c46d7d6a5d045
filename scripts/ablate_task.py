"""Change the features that matter most exactly, alone and in sets, on a task: the check on the attribution."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from chronocoder.sharing import Tasks, run_shared

if TYPE_CHECKING:
    import xarray as xr


def main(tasks: Tasks) -> None:
    """Read the arguments, measure, write."""
    from chronocoder.attribution.job import Result, add_job_flags, start_job
    from chronocoder.command_line import add_flags, from_flags, paired
    from chronocoder.config import AblationSettings
    from chronocoder.stores import load_store

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attributions", type=Path, nargs="+", required=True, help="effects on the tasks, same order")
    parser.add_argument("--own-codes", type=Path, required=True, help="what makes own codes of the crosscoder")
    add_job_flags(parser)
    add_flags(parser, AblationSettings)
    arguments = parser.parse_args()
    ablation = from_flags(arguments, AblationSettings)
    attributions = paired(arguments, "outputs", "attributions")
    own_codes_store = load_store(arguments.own_codes)
    job = start_job(arguments, tasks)

    from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
    from chronocoder.crosscoder.own_codes import read_own_codes

    own_codes = read_own_codes(own_codes_store, job.crosscoder)

    def ablate(output: Path, task: "xr.Dataset") -> Result | None:
        effects = load_store(attributions[output])
        job.check_attribution(effects, task)
        measured = measure_ablations(job.crosscoder, job.sites, task, effects, job.settings, ablation, own_codes)
        if not job.writes:
            return None
        summary = summarise_ablations(measured, task, effects, job.settings)
        return Result(summary, ablation, {**job.facts(task), "attribution_settings": job.settings.model_dump_json()})

    job.work(ablate)


if __name__ == "__main__":
    run_shared(main, "attributions")
