"""Train a crosscoder; several processes are started through `accelerate launch`."""

import argparse
from pathlib import Path

from chronocoder.command_line import (
    add_flags,
    add_loading,
    add_variant_flags,
    from_flags,
    loading_from,
    paired,
    require,
    run_script,
    variant_from,
)
from chronocoder.config import HarvestSettings
from chronocoder.errors import ConfigError
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", required=True, help="name of the comparison")
    parser.add_argument("--variant", required=True, help="name of the variant")
    parser.add_argument("--seed", type=int, required=True, help="seed of the initialisation and the data order")
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory to write the crosscoder to")
    parser.add_argument("--history", type=Path, required=True, help="store to write losses and metrics to")
    cached = parser.add_argument_group("cached", "training on stored activations")
    cached.add_argument("--activations", type=Path, nargs="+", help="stores, in order of training")
    streaming = parser.add_argument_group("streaming", "training on activations that the models compute meanwhile")
    streaming.add_argument("--suite", help="name of the suite")
    streaming.add_argument("--revisions", nargs="+", help="names of the checkpoints, in order of training")
    streaming.add_argument("--checkpoints", type=Path, nargs="+", help="their directories, same order")
    streaming.add_argument("--corpus", type=Path, help="store of the training text")
    streaming.add_argument("--site", help="for instance residual.2")
    add_loading(parser)
    running = parser.add_argument_group("running", "what changes the crosscoder by rounding only")
    running.add_argument("--processes", type=int, default=1, help="processes to train on, over all machines; one a GPU")
    running.add_argument("--dictionary-shards", type=int, default=1, help="parts that the dictionary is cut into")
    running.add_argument(
        "--parts",
        type=int,
        default=8,
        help="parts that each batch is dealt to, so that the crosscoder is the same to the last bit for any number of"
        " processes that divides it; 0: none, and rounding depends on the number of processes",
    )
    running.add_argument("--save-every", type=int, default=1000, help="steps from one saved state to the next")
    running.add_argument(
        "--machines",
        type=int,
        default=1,
        help="machines that train together, with outputs on a file system they share; call this on the first node of a"
        " SLURM allocation, which starts it on so many nodes, or else on each machine, with the three flags below",
    )
    running.add_argument("--machine-rank", type=int, help="this machine, from 0")
    running.add_argument("--main-address", default="127.0.0.1", help="where machine 0 is reached")
    running.add_argument("--main-port", type=int, default=0, help="a free port of machine 0")
    add_flags(parser, HarvestSettings)
    add_variant_flags(parser)
    arguments = parser.parse_args()
    settings = variant_from(arguments)
    for name in ("processes", "dictionary_shards", "save_every", "machines"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)} is below 1; give 1 or more")
    if arguments.parts < 0 or arguments.parts % arguments.processes:
        raise ConfigError(
            f"--processes {arguments.processes} does not divide --parts {arguments.parts}; change one of them, or give"
            " --parts 0"
        )
    if arguments.activations and arguments.checkpoints:
        raise ConfigError("--activations and --checkpoints are both given; give one of them")
    if not arguments.activations:
        require(arguments, "suite", "revisions", "checkpoints", "corpus", "site")
    if arguments.processes > 1 or arguments.machines > 1:
        from chronocoder.crosscoder.launch import Machines, run_on_processes

        machines = Machines(arguments.machines, arguments.machine_rank, arguments.main_address, arguments.main_port)
        run_on_processes(arguments.processes, machines)

    from accelerate import PartialState

    from chronocoder.activations.loader import ActivationStores
    from chronocoder.activations.origin import origin_of
    from chronocoder.crosscoder.model import CrosscoderConfig
    from chronocoder.crosscoder.state import StateDirectory, identity_of
    from chronocoder.crosscoder.training import train_crosscoder

    if arguments.activations:
        source = ActivationStores(arguments.activations)
        origin = origin_of(source)
    else:
        from chronocoder.activations.streaming import stream_checkpoints

        corpus = load_store(arguments.corpus)
        given = paired(arguments, "revisions", "checkpoints")
        harvest, loading = from_flags(arguments, HarvestSettings), loading_from(arguments)
        source, origin = stream_checkpoints(arguments.suite, given, arguments.site, corpus, harvest, loading)
    config = CrosscoderConfig(
        suite=origin.suite,
        comparison=arguments.comparison,
        variant=arguments.variant,
        checkpoints=origin.revisions,
        site=origin.site,
        d_model=source.width,
        settings=settings,
        seed=arguments.seed,
        commits=origin.commits,
        folded=False,
        unequal_widths=source.widths if len(set(source.widths)) > 1 else (),
    )
    shards, parts = arguments.dictionary_shards, arguments.parts
    states = StateDirectory(arguments.crosscoder.with_name("training_state"), identity_of(config, origin, parts))
    rescue = arguments.crosscoder.with_name("last_good_crosscoder")
    trained = train_crosscoder(config, source, states, rescue, arguments.save_every, shards, parts)
    if PartialState().is_main_process:
        facts = {**trained.crosscoder.facts, "processes": PartialState().num_processes, "parts": parts}
        write_store(trained.history, arguments.history, provenance(settings, **facts))
        trained.crosscoder.save(arguments.crosscoder)
        states.remove()


if __name__ == "__main__":
    run_script(main)
