"""Compare the activations of a suite's checkpoints on the same tokens."""

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
from chronocoder.config import SimilaritySettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--sites", nargs="+", required=True, help="for instance residual.2")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, SimilaritySettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, SimilaritySettings), loading_from(arguments)
    corpus = load_store(arguments.corpus)

    from chronocoder.activations.harvest import sample_activations
    from chronocoder.behaviour.similarity import compare_activations
    from chronocoder.suites.checkpoints import ModelsInTurn, checkpoint_commit

    given = checkpoints_from(arguments)
    models = ModelsInTurn(given.paths, loading, [corpus])
    activations = sample_activations(models, arguments.sites, corpus["token_ids"].values, settings.tokens)
    similarity = compare_activations(activations, given.tokens_seen)
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    facts = provenance(settings, suite=given.suite, commits=commits, **models.facts)
    write_store(similarity, arguments.output, facts)


if __name__ == "__main__":
    run_script(main)
