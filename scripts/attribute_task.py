"""Measure the effect of every feature of a crosscoder on one task, at every checkpoint."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_checkpoints, add_flags, checkpoints_from, from_flags, run_script
from chronocoder.config import AttributionSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--task", type=Path, required=True, help="store of the task")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, AttributionSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, AttributionSettings)
    task = load_store(arguments.task)

    from chronocoder.attribution.attribute import measure_effects, summarise_effects
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.suites.checkpoints import load_model
    from chronocoder.suites.sites import resolve_site

    given = checkpoints_from(arguments)
    crosscoder = load_crosscoder(arguments.crosscoder, default_device())
    sites = [resolve_site(load_model(path), crosscoder.config.site) for path in given.paths.values()]
    measured = measure_effects(crosscoder, sites, task, settings)
    norms = crosscoder.decoder_norms.cpu().numpy()
    attribution = summarise_effects(measured, norms, given.tokens_seen, settings)
    facts = {**crosscoder.facts, "task": task.attrs["task"], "examples": task.sizes["example"]}
    write_store(attribution, arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
