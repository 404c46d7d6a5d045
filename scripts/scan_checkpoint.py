"""Look at one checkpoint cheaply: some pairs of every task, and the activations of some tokens."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, add_loading, from_flags, loading_from, run_script
from chronocoder.config import ScanSettings
from chronocoder.stores import load_store, provenance, write_store
from chronocoder.suites.agreement import check_agreement


def main() -> None:
    """Read the arguments, scan, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revision", required=True, help="name of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its directory")
    parser.add_argument("--task-stores", type=Path, nargs="+", required=True, help="stores of the tokenised tasks")
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--sites", nargs="+", required=True, help="for instance residual.2")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    parser.add_argument("--tokenizer", type=Path, help="directory of the text's tokenizer, to compare the checkpoint's")
    add_loading(parser)
    add_flags(parser, ScanSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, ScanSettings), loading_from(arguments)
    if arguments.tokenizer is not None:
        check_agreement(arguments.tokenizer, {arguments.revision: arguments.checkpoint})
    tasks, corpus = [load_store(path) for path in arguments.task_stores], load_store(arguments.corpus)

    from chronocoder.behaviour.scan import scan_checkpoint
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model, loading_facts

    model = load_model(arguments.checkpoint, loading, [*tasks, corpus])
    scan = scan_checkpoint(model, tasks, corpus["token_ids"].values, arguments.sites, settings)
    facts = {
        "suite": arguments.suite,
        "revision": arguments.revision,
        "commit": checkpoint_commit(arguments.checkpoint),
        **loading_facts(model),
    }
    write_store(scan, arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
