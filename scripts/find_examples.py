"""Find what the features that matter stand for: text they are most active on, tokens they promote, their company."""

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
from chronocoder.config import FeatureSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, search, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--relie", type=Path, required=True, help="store of the effects on all tasks")
    parser.add_argument("--activations", type=Path, nargs="+", required=True, help="validation stores, in order")
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, FeatureSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, FeatureSettings), loading_from(arguments)
    relie, corpus = load_store(arguments.relie), load_store(arguments.corpus)

    from chronocoder.activations.loader import ActivationStores
    from chronocoder.activations.origin import origin_of
    from chronocoder.crosscoder.evaluation import check_origin
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.features.examples import read_features, sequence_labels, top_features
    from chronocoder.features.outputs import output_tokens
    from chronocoder.suites.checkpoints import ModelsInTurn
    from chronocoder.suites.tokenizers import load_tokenizer

    given = checkpoints_from(arguments)
    crosscoder = load_crosscoder(arguments.crosscoder, default_device())
    chosen = top_features(relie, settings.top_features)
    stores = ActivationStores(arguments.activations)
    check_origin(crosscoder.config, origin_of(stores), list(given.paths))
    tokenizer = load_tokenizer(arguments.tokenizer)
    read = read_features(crosscoder, stores, tokenizer, chosen, settings, sequence_labels(stores, corpus))
    models = (model for _, model in ModelsInTurn(given.paths, loading, [corpus]))
    outputs = output_tokens(crosscoder, models, corpus["token_ids"].values, chosen, tokenizer, settings.output_tokens)
    tokens_seen = [given.tokens_seen[revision] for revision in crosscoder.config.checkpoints]
    found = read.assign(outputs).assign_coords(tokens_seen=("checkpoint", tokens_seen))
    found = found.assign_coords(rank=range(found.sizes["rank"]))
    facts = {**crosscoder.facts, "validation_tokens": stores.rows}
    write_store(found, arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
