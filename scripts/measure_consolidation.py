"""Compare the effects of features between languages: whether they share features, and since when."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import ConsolidationSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relie", type=Path, required=True, help="store of the effects on all tasks")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, ConsolidationSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, ConsolidationSettings)
    relie = load_store(arguments.relie)

    from chronocoder.features.consolidation import consolidate

    facts = {key: relie.attrs[key] for key in ("suite", "comparison", "variant", "site", "seed", "commits")}
    write_store(consolidate(relie, settings), arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
