"""Find the text on which the features that matter are most active."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import FeatureSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, search, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--relie", type=Path, required=True, help="store of the effects on all tasks")
    parser.add_argument("--activations", type=Path, nargs="+", required=True, help="validation stores, in order")
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, FeatureSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, FeatureSettings)
    relie = load_store(arguments.relie)

    from chronocoder.activations.loader import ActivationStores
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.features.examples import sequence_labels, top_examples, top_features
    from chronocoder.suites.tokenizers import load_tokenizer

    crosscoder = load_crosscoder(arguments.crosscoder, default_device())
    chosen = top_features(relie, settings.top_features)
    stores = ActivationStores(arguments.activations)
    labels = sequence_labels(stores, load_store(arguments.corpus))
    examples = top_examples(crosscoder, stores, load_tokenizer(arguments.tokenizer), chosen, settings, labels)
    write_store(examples, arguments.output, provenance(settings, **crosscoder.facts))


if __name__ == "__main__":
    run_script(main)
