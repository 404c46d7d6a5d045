"""Judge a crosscoder on the validation split."""

import argparse
from pathlib import Path

from chronocoder.command_line import (
    add_checkpoints,
    add_flags,
    add_loading,
    checkpoints_from,
    from_flags,
    loading_from,
    run_script,
)
from chronocoder.config import EvaluationSettings
from chronocoder.labels import control_of
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--activations", type=Path, nargs="+", required=True, help="validation stores, in order")
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    parser.add_argument("--own-codes", type=Path, required=True, help="store to write what makes own codes to")
    add_flags(parser, EvaluationSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, EvaluationSettings), loading_from(arguments)
    corpus = load_store(arguments.corpus)

    from chronocoder.activations.loader import ActivationStores
    from chronocoder.activations.origin import origin_of
    from chronocoder.crosscoder.evaluation import (
        check_origin,
        evaluation_dataset,
        measure_cross_entropy,
        measure_reconstruction,
    )
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.crosscoder.own_codes import fit_maps, measure_own_codes, odd_sequences, own_codes_dataset
    from chronocoder.devices import default_device
    from chronocoder.suites.checkpoints import joint_loading_facts, load_model
    from chronocoder.suites.sites import resolve_site

    given = checkpoints_from(arguments)
    crosscoder = load_crosscoder(arguments.crosscoder, default_device())
    stores = ActivationStores(arguments.activations)
    check_origin(crosscoder.config, origin_of(stores), list(given.paths))
    odd = odd_sequences(stores)
    quality = measure_reconstruction(crosscoder, stores.blocks())
    maps = fit_maps(crosscoder, stores.blocks(), odd)
    own = measure_own_codes(crosscoder, maps, stores.blocks(), odd)
    models = [load_model(path, loading, [corpus]) for path in given.paths.values()]
    sites = [resolve_site(model, crosscoder.config.site) for model in models]
    entropies = measure_cross_entropy(crosscoder, maps, sites, corpus["token_ids"].values, settings)
    evaluation = evaluation_dataset(crosscoder, quality, own, entropies, settings, given.tokens_seen)
    r2 = evaluation["own_code_r2"].values
    own_codes = own_codes_dataset(maps.for_other_text(~(r2 < settings.supported_r2)), crosscoder.config)
    facts = {**crosscoder.facts, "control": control_of(crosscoder.config.checkpoints), **joint_loading_facts(models)}
    write_store(evaluation, arguments.output, provenance(settings, **facts))
    write_store(own_codes, arguments.own_codes, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
