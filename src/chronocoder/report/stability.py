"""How far effects depend on the seed, as a table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from chronocoder.stores import names
from chronocoder.wording import decimal, in_words

COLUMNS = {
    "Cosine at least": "cosine_at_least",
    "Matched": "features_matched",
    "Spearman of IE": "indirect_effect_spearman",
    "RelIE differs by": "relative_indirect_effect_difference",
    "Same class": "class_agreement",
    "Kappa": "class_kappa",
    "Classes": "classes_compared",
}
COUNTS = ("features_matched", "classes_compared")


class SeedTable(NamedTuple):
    """The seeds of one comparison and variant.

    Attributes:
        label: comparison, variant and seeds.
        heads: of the columns of numbers.
        tasks: by task, a row of numbers for each least cosine.
    """

    label: str
    heads: Sequence[str]
    tasks: Mapping[str, list[list[str]]]


def seed_table(matches: xr.Dataset) -> SeedTable:
    """Return the stability of effects and classes, means over the seeds beside the first and over checkpoints.

    Args:
        matches: what is stored of one comparison and variant, dims (seed, cosine_at_least, task, checkpoint).
    """
    means = matches.mean(["seed", "checkpoint"])
    reference, *others = matches.attrs["seeds"]
    return SeedTable(
        f"{matches.attrs['comparison']} · {matches.attrs['variant']} · seed {reference}"
        f" against {', '.join(str(seed) for seed in others)}",
        list(COLUMNS),
        {
            in_words(task): [
                _row(means.sel(task=task).isel(cosine_at_least=place))
                for place in range(matches.sizes["cosine_at_least"])
            ]
            for task in names(matches, "task")
        },
    )


def _row(means: xr.Dataset) -> list[str]:
    return [f"{float(means[name]):.0f}" if name in COUNTS else decimal(float(means[name])) for name in COLUMNS.values()]
