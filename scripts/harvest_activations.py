"""Store the activations of one checkpoint at one site on one split."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, add_loading, from_flags, loading_from, run_script
from chronocoder.config import HarvestSettings
from chronocoder.stores import load_store, provenance


def main() -> None:
    """Read the arguments, harvest each split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revision", required=True, help="name of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--site", required=True, help="for instance residual.2")
    parser.add_argument("--corpora", type=Path, nargs="+", required=True, help="stores of the text, one a split")
    parser.add_argument("--outputs", type=Path, nargs="+", required=True, help="stores to write, in the same order")
    parser.add_argument("--tokenizer", type=Path, help="directory of the text's tokenizer, to compare the checkpoint's")
    add_loading(parser)
    add_flags(parser, HarvestSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, HarvestSettings), loading_from(arguments)
    corpora = [load_store(path) for path in arguments.corpora]

    from chronocoder.activations.harvest import harvest
    from chronocoder.activations.origin import text_digest
    from chronocoder.suites.agreement import check_same_tokenizer
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model, loading_facts
    from chronocoder.suites.sites import resolve_site

    if arguments.tokenizer is not None:
        check_same_tokenizer(arguments.checkpoint, arguments.tokenizer)
    site = resolve_site(load_model(arguments.checkpoint, loading, corpora), arguments.site)
    commit = checkpoint_commit(arguments.checkpoint)
    for corpus, output in zip(corpora, arguments.outputs, strict=True):
        attributes = provenance(
            settings,
            suite=arguments.suite,
            revision=arguments.revision,
            commit=commit,
            site=arguments.site,
            split=corpus.attrs["split"],
            tokens_digest=text_digest(corpus),
            **loading_facts(site.model),
        )
        harvest(site, corpus, settings, output, attributes)


if __name__ == "__main__":
    run_script(main)
