"""What tests run in processes of their own; it imports no conftest, since a new process could find another one."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from chronocoder.activations.loader import ActivationStores
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.training import train_crosscoder


def server() -> ForkServerContext:
    """Return a context whose processes are forked from one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    # The first step of an optimiser imports the second one.
    context.set_forkserver_preload(["chronocoder.crosscoder.training", "torch._dynamo"])
    return context


def train_alone(config: CrosscoderConfig, paths: list[Path], directory: Path, save_every: int) -> None:
    """Train, saving the state often, and save the crosscoder."""
    torch.set_num_threads(1)
    states = StateDirectory(directory / "state", {"seed": config.seed})
    trained = train_crosscoder(config, ActivationStores(paths), states, directory / "last_good", save_every)
    trained.crosscoder.save(directory / "crosscoder")


def train_in_team(
    rank: int,
    processes: int,
    shards: int,
    parts: int,
    port: int,
    config: CrosscoderConfig,
    paths: list[Path],
    output: Path,
) -> None:
    """Train as one of several processes, as `accelerate launch` would have started it."""
    torch.set_num_threads(1)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in own.items()})
    os.environ.update({"CHRONOCODER_LAUNCHED": "1", "CUDA_VISIBLE_DEVICES": ""})
    states = StateDirectory(output / "state", {})
    trained = train_crosscoder(config, ActivationStores(paths), states, output / "last_good", 10, shards, parts)
    if rank == 0:
        trained.crosscoder.save(output / "crosscoder")
        trained.history.to_zarr(output / "history.zarr", consolidated=False)
