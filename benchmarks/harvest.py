"""Measure the tokens a second of a harvest, beside those of the same forward passes that end at the site.

The two are measured in turn in the same run; both figures are medians.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from untrained import gpt_neox

from chronocoder.activations.harvest import harvest
from chronocoder.config import HarvestSettings
from chronocoder.suites.sites import Site, resolve_site

_log = logging.getLogger("harvest")


def main() -> None:
    """Read the arguments, make a model and a text, measure, report."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    torch.set_num_threads(arguments.threads)
    site = resolve_site(
        gpt_neox(arguments.width, arguments.block + 2, 8, 1000).requires_grad_(False), f"residual.{arguments.block}"
    )
    shape = (arguments.sequences, arguments.length)
    token_ids = np.random.default_rng(0).integers(0, site.model.config.vocab_size, shape).astype(np.int32)
    bare, harvested = _measure(site, token_ids, arguments)
    _log.info(
        "%s on %s, %d threads: forward pass to the site %.0f tokens/s, harvest %.0f tokens/s, ratio %.2f",
        arguments.dtype,
        site.model.device,
        arguments.threads,
        bare,
        harvested,
        harvested / bare,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512, help="d_model")
    parser.add_argument("--block", type=int, default=2, help="block whose output is harvested")
    parser.add_argument("--sequences", type=int, default=64, help="sequences of the text")
    parser.add_argument("--length", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences in a forward pass")
    parser.add_argument("--dtype", default="float16", help="number format of the store")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each figure")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--directory", type=Path, help="where temporary data is made")
    return parser


def _measure(site: Site, token_ids: np.ndarray, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return tokens a second of the forward pass alone and of the harvest."""
    settings = HarvestSettings(dtype=arguments.dtype, batch_size=arguments.batch_size)
    corpus = xr.Dataset({"token_ids": (("sequence", "position"), token_ids)})
    bare, harvested = [], []
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        for number in range(arguments.repeats + 1):  # the first one warms up
            path = Path(folder) / f"{number}.zarr"
            bare.append(_seconds(lambda: _forward(site, token_ids, arguments.batch_size)))
            harvested.append(_seconds(lambda path=path: harvest(site, corpus, settings, path, {"site": site.name})))
    return token_ids.size / statistics.median(bare[1:]), token_ids.size / statistics.median(harvested[1:])


def _forward(site: Site, token_ids: np.ndarray, batch_size: int) -> None:
    for batch in torch.from_numpy(token_ids.astype(np.int64)).to(site.model.device).split(batch_size):
        site.read(batch)
    if site.model.device.type == "cuda":
        torch.cuda.synchronize()


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
