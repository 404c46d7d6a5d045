"""What parameters tasks share: a sentence."""

import numpy as np
import xarray as xr

from chronocoder.figures.gradients import CHANCE, MEASURES, SWAPPED, group_means, level_means
from chronocoder.stores import names
from chronocoder.wording import listed, percent


def sharing_sentence(gradients: xr.Dataset) -> str:
    """Return how many parameters tasks share at the first and the last checkpoint, beside both levels."""
    measure = MEASURES["shared parameters"]
    means, levels = group_means(gradients, measure.variable), level_means(gradients, measure)
    known = {kind: values for kind, values in means.items() if np.isfinite(values).any()}
    checkpoints = names(gradients, "checkpoint")
    parts = [
        f"{listed([f'{percent(of[place])} {kind}' for kind, of in known.items()])} at {checkpoints[place]}"
        f" ({percent(levels[SWAPPED][place])} with right and wrong swapped in half of one’s pairs,"
        f" {percent(levels[CHANCE][place])} by chance)"
        for place in dict.fromkeys((0, len(checkpoints) - 1))
    ]
    return (
        "Of the parameters that are chosen for one task, those of largest gradient differential, the fraction that is"
        f" also chosen for another is on average {', and '.join(parts)}."
    )
