"""Measure what storing activations in fewer bits costs in explained variance.

Harvests two or more checkpoints of a suite that has been run in each number format, trains the same crosscoder on each,
and judges all of them on the same validation activations in float32.

    make run && python benchmarks/storage.py
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
import xarray as xr

from chronocoder.activations.harvest import harvest
from chronocoder.activations.loader import ActivationStores
from chronocoder.config import HarvestSettings, load_experiment
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.stores import load_store
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import resolve_site

FORMATS = ("float32", "float16", "int8")


def main() -> None:
    """Harvest, train, judge, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--suite", default="nursery")
    parser.add_argument("--revisions", nargs="+", default=["step64", "step320"])
    parser.add_argument("--variants", nargs="+", help="those of the configuration where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.config)
    results, site = Path(experiment.results) / arguments.suite, experiment.suites[arguments.suite].site
    corpora = {split: load_store(results / "corpus" / f"{split}.zarr") for split in ("train", "validation")}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        for revision in arguments.revisions:
            store(results / "checkpoints" / revision, revision, site, corpora, directory)
        validation = opened(directory, "float32", "validation", arguments.revisions)
        for variant in arguments.variants or experiment.variants:
            for number_format in FORMATS:
                train = opened(directory, number_format, "train", arguments.revisions)
                size = sum(file.stat().st_size for path in train.paths for file in (path / "activations").rglob("*"))
                explained = []
                for seed in arguments.seeds:
                    config = CrosscoderConfig(
                        arguments.suite, "storage", variant, tuple(arguments.revisions), site, train.width,
                        experiment.variants[variant], seed, (), False,
                    )  # fmt: skip
                    states = StateDirectory(directory / "state", {"format": number_format, "seed": seed})
                    crosscoder = train_crosscoder(config, train, states, directory / "rescue", 10**9).crosscoder
                    explained.append(measure_reconstruction(crosscoder, validation.blocks()).explained_variance)
                shown = " ".join(f"{value:.5f}" for value in torch.stack(explained).mean(dim=0))
                bytes_a_value = size / train.rows / train.width / len(arguments.revisions)
                sys.stdout.write(
                    f"{variant:10} {number_format:8} {bytes_a_value:.2f} bytes a value"
                    f"  explained variance {shown} (mean of {len(arguments.seeds)} seeds)\n"
                )


def store(checkpoint: Path, revision: str, site: str, corpora: dict[str, xr.Dataset], directory: Path) -> None:
    """Harvest one checkpoint in every format."""
    place = resolve_site(load_model(checkpoint), site)
    for number_format in FORMATS:
        for split, corpus in corpora.items():
            path = directory / number_format / revision / f"{split}.zarr"
            path.parent.mkdir(parents=True, exist_ok=True)
            harvest(place, corpus, HarvestSettings(dtype=number_format), path, {"revision": revision, "site": site})


def opened(directory: Path, number_format: str, split: str, revisions: list[str]) -> ActivationStores:
    """Open the stores of one format and split."""
    return ActivationStores([directory / number_format / revision / f"{split}.zarr" for revision in revisions])


if __name__ == "__main__":
    main()
