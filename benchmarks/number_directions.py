"""Tell, without any crosscoder, whether a model of two languages has one direction for number or one for each.

    snakemake --configfile experiments/nursery-bilingual.yaml --cores all
    python benchmarks/number_directions.py results/bilingual

The direction of a language at a block is the difference between the mean activations after plural and after singular
subjects, at the last token of the prefixes of its simple agreement task. Each prefix is moved half a difference towards
its own number, and half a difference away from it: how much that changes right minus wrong is compared between the
language's own direction and that of the other language, made as long. Directions are those of the first half of the
pairs, and tried on the rest.
"""

import argparse
import sys
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from chronocoder.stores import load_store
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.tasks.readout import readout_of
from chronocoder.tasks.rows import row_batches, row_ids

LANGUAGES, TASK, PLURAL = ("english", "french"), "agreement_simple", "head plural"
REVISIONS = ("step64", "step128", "step256", "step448", "step1000")
DRAWS = 20


class Prefixes(NamedTuple):
    """The prefixes of a task at a site.

    Attributes:
        site: in a model.
        task: their tokens and answers.
        plural: which have a plural subject.
        last: activations at their last token.
    """

    site: Site
    task: xr.Dataset
    plural: Bool[np.ndarray, " example"]
    last: Float[Tensor, "example d_model"]

    def direction(self, chosen: slice) -> Float[Tensor, " d_model"]:
        """Return the difference between the means of chosen prefixes with plural and with singular subjects."""
        last, plural = self.last[chosen], torch.from_numpy(self.plural[chosen])
        return last[plural].mean(dim=0) - last[~plural].mean(dim=0)

    def effect(self, direction: Float[Tensor, " d_model"], chosen: slice) -> float:
        """Return the change of right minus wrong when chosen prefixes are moved along a direction, in logits."""
        toward = torch.from_numpy(np.where(self.plural, 0.5, -0.5)).float()[:, None] * direction
        ends = [_difference(self, self.last + sign * toward) for sign in (1, -1)]
        return float((ends[0] - ends[1])[chosen].mean())


def main() -> None:
    """Read the arguments, print a row for each checkpoint and block."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="directory of the suite's results")
    parser.add_argument("--revisions", nargs="+", default=REVISIONS, help="names of the checkpoints")
    arguments = parser.parse_args()
    tasks = [load_store(arguments.suite / "tasks" / f"{language}_{TASK}.zarr") for language in LANGUAGES]
    heads = [f"{one} by {other}" for one, other in permutations(LANGUAGES)]
    sys.stdout.write(f"| checkpoint | block | cosine | {' | '.join(heads)} |\n| --- | --- | --- | --- | --- |\n")
    for revision in arguments.revisions:
        model = load_model(arguments.suite / "checkpoints" / revision)
        for block in range(model.config.num_hidden_layers - 1):
            cells = compare(*(read_prefixes(model, f"residual.{block}", task) for task in tasks))
            sys.stdout.write(f"| {revision} | {block} | {' | '.join(cells)} |\n")


def compare(first: Prefixes, second: Prefixes) -> list[str]:
    """Return the cosine of two languages' directions, and what each does in the other, as a part of the own one's."""
    directions = [prefixes.direction(slice(len(prefixes.last) // 2)) for prefixes in (first, second)]
    cells = [f"{float(torch.cosine_similarity(*directions, dim=0)):.2f}"]
    generator = torch.Generator().manual_seed(0)
    for prefixes, (own, other) in zip((first, second), permutations(directions), strict=True):
        trying = slice(len(prefixes.last) // 2, None)
        whole = prefixes.effect(own, trying)
        draws = torch.randn(DRAWS, len(own), generator=generator)
        parts = [prefixes.effect(_as_long(row, own), trying) / whole for row in (other, *draws)]
        cells.append(f"{parts[0]:.2f} (random ± {np.std(parts[1:]):.2f})")
    return cells


def read_prefixes(model: PreTrainedModel, site: str, task: xr.Dataset) -> Prefixes:
    """Return the prefixes of a task with their activations at a site."""
    resolved = resolve_site(model, site)
    last = torch.empty(task.sizes["example"], model.config.hidden_size)
    for rows in row_batches(task, task.sizes["example"]):
        last[rows.examples] = resolved.read(torch.from_numpy(row_ids(task, rows))).activation[:, -1].float()
    plural = np.array([PLURAL in condition for condition in task["condition"].values.tolist()])
    return Prefixes(resolved, task, plural, last)


@torch.no_grad()
def _difference(prefixes: Prefixes, last: Float[Tensor, "example d_model"]) -> Float[Tensor, " example"]:
    """Return right minus wrong with other activations at the last token, in logits."""
    task, found = prefixes.task, torch.empty(len(last))
    for rows in row_batches(task, len(last)):
        ids, readout = torch.from_numpy(row_ids(task, rows)), readout_of(task, rows, torch.device("cpu"))
        activation = prefixes.site.read(ids).activation.clone()
        activation[:, -1] = last[rows.examples]
        logits = prefixes.site.resume(ids, activation, answers=readout.answer_ids)
        found[rows.examples] = -readout.terms(logits)[:, 0]
    return found


def _as_long(vector: Tensor, model: Tensor) -> Tensor:
    return vector * model.norm() / vector.norm()


if __name__ == "__main__":
    main()
