"""What one dictionary for several checkpoints is worth beside one for each, as a table."""

from collections.abc import Sequence
from typing import NamedTuple

import xarray as xr

from chronocoder.report.inputs import key_of
from chronocoder.wording import decimal

MEASURES = {
    "baseline_relative_indirect_effect": "RelIE of single dictionaries, matched",
    "joint_relative_indirect_effect": "RelIE of the joint dictionary",
    "joint_relative_decoder_norm": "RelDec of the joint dictionary",
}
COLUMNS = {
    "Spearman": "spearman",
    "Differs by": "mean_absolute_difference",
    "Same class": "class_agreement",
    "Kappa": "class_kappa",
}


class BaselineTable(NamedTuple):
    """A joint dictionary beside those of its checkpoints alone.

    Attributes:
        label: the joint crosscoder.
        heads: of the columns of numbers.
        rows: for each least cosine it, the features matched and compared, and by measure a row of numbers.
    """

    label: str
    heads: Sequence[str]
    rows: list[tuple[str, str, dict[str, list[str]]]]


def baseline_table(baseline: xr.Dataset) -> BaselineTable:
    """Return how well shares by each measure predict those of exact effects, means over tasks and checkpoints."""
    counts = baseline["features_compared"].sum("task")
    means = baseline[list(COLUMNS.values())].mean(["task", "checkpoint"])
    rows = [
        (
            decimal(float(least)),
            f"{int(baseline['features_matched'][place])} ({int(counts[place])})",
            {
                label: [
                    decimal(float(means[name].isel(cosine_at_least=place).sel(measure=key)))
                    for name in COLUMNS.values()
                ]
                for key, label in MEASURES.items()
            },
        )
        for place, least in enumerate(baseline["cosine_at_least"].values)
    ]
    return BaselineTable(key_of(baseline).label, list(COLUMNS), rows)
