"""Train a crosscoder; several processes are started through `accelerate launch`."""

import argparse
import sys
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import CrosscoderSettings
from chronocoder.stores import provenance, write_store


def main() -> None:
    """Read the arguments, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", required=True, help="name of the comparison")
    parser.add_argument("--variant", required=True, help="name of the variant")
    parser.add_argument("--activations", type=Path, nargs="+", required=True, help="stores, in order of training")
    parser.add_argument("--seed", type=int, required=True, help="seed of the initialisation and the data order")
    parser.add_argument("--processes", type=int, default=1, help="processes to train on; one a GPU")
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory to write the crosscoder to")
    parser.add_argument("--history", type=Path, required=True, help="store to write losses and metrics to")
    add_flags(parser, CrosscoderSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, CrosscoderSettings)
    if arguments.processes > 1:
        from chronocoder.crosscoder.launch import is_launched, launch

        if not is_launched():
            sys.exit(launch(sys.argv, arguments.processes))

    from accelerate import PartialState

    from chronocoder.activations.loader import ActivationStores
    from chronocoder.crosscoder.model import CrosscoderConfig
    from chronocoder.crosscoder.training import train_crosscoder

    stores = ActivationStores(arguments.activations)
    config = CrosscoderConfig(
        suite=stores.attributes[0]["suite"],
        comparison=arguments.comparison,
        variant=arguments.variant,
        checkpoints=tuple(attributes["revision"] for attributes in stores.attributes),
        site=stores.attributes[0]["site"],
        d_model=stores.width,
        settings=settings,
        seed=arguments.seed,
        commits=tuple(attributes["commit"] for attributes in stores.attributes),
        folded=False,
    )
    rescue = arguments.crosscoder.with_name("last_good_crosscoder")
    trained = train_crosscoder(config, stores, rescue)
    if PartialState().is_main_process:
        facts = {**trained.crosscoder.facts, "processes": PartialState().num_processes}
        write_store(trained.history, arguments.history, provenance(settings, **facts))
        trained.crosscoder.save(arguments.crosscoder)


if __name__ == "__main__":
    run_script(main)
