"""Train a crosscoder; run by `accelerate launch` for several processes."""

import argparse
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
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory to write the crosscoder to")
    parser.add_argument("--history", type=Path, required=True, help="store to write losses and metrics to")
    add_flags(parser, CrosscoderSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, CrosscoderSettings)

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
        folded=False,
    )
    rescue = arguments.crosscoder.with_name("last_good_crosscoder")
    trained = train_crosscoder(config, stores, rescue)
    if PartialState().is_main_process:
        write_store(trained.history, arguments.history, provenance(settings, **trained.crosscoder.facts))
        trained.crosscoder.save(arguments.crosscoder)


if __name__ == "__main__":
    run_script(main)
