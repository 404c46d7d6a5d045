"""Compare ways of tuning by what they gain and what they cost the language.

    snakemake --configfile experiments/nursery-tuning.yaml --cores all
    python benchmarks/tuning.py results/tuning

A row is a way of tuning: its gain on held-out pairs of the task it is tuned on, in logits, and the loss it adds on
validation text, in nats a token, means over tasks and seeds, at each checkpoint; and the transfer to other tasks of the
same hypothesised group, to those of others, and the largest of these by size.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from chronocoder.stores import load_store


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results directory of the experiment")
    lines = [
        "| tuning | checkpoint | own gain | damage | within groups | between groups | most between |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(parser.parse_args().results.glob("*/taskspace/transfer.zarr")):
        transfer = load_store(path)
        places = itertools.product(transfer["tuning"].values, transfer["checkpoint"].values)
        lines += [row(transfer.sel(tuning=name, checkpoint=checkpoint)) for name, checkpoint in places]
    sys.stdout.write("\n".join(lines) + "\n")


def row(cell: xr.Dataset) -> str:
    """Return the row of a way of tuning at a checkpoint."""
    values = cell["mean_transfer"].transpose("source", "target").values
    groups, own = cell["group"].values, np.eye(len(values), dtype=bool)
    same = (groups[:, None] == groups) & ~own
    other = values[groups[:, None] != groups]
    numbers = (values[own].mean(), values[same].mean(), other.mean(), np.abs(other).max())
    gain, within, between, most = (f"{number:.3f}" for number in numbers)
    damage = f"{float(cell['mean_loss_change'].mean()):.4f}"
    names = (str(cell[name].values) for name in ("tuning", "checkpoint"))
    return f"| {' | '.join((*names, gain, damage, within, between, most))} |"


if __name__ == "__main__":
    main()
