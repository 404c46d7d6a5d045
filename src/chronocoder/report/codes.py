"""Whose codes are: how far a crosscoder lets one checkpoint know what others do."""

from collections.abc import Sequence

import numpy as np

from chronocoder.report.compact import Part, arrays, at
from chronocoder.report.inputs import Run
from chronocoder.stores import names
from chronocoder.wording import listed

OF_DECODER = {
    "supported": "code_supported",
    "r2": "own_code_r2",
    "preactivation": "preactivation_share",
    "refitted": "refitted_decoder_norm",
    "present": "present",
    "left": "latent_scaling_error",
    "supplied": "latent_scaling_reconstruction",
}


def code_sentences(runs: Sequence[Run]) -> str:
    """Return how often splicing helps a model, and how many features have a code that a checkpoint does not support."""
    above = np.concatenate([run.evaluation["recovered_above_one"].values for run in runs])
    own = np.concatenate([run.evaluation["cross_entropy_recovered_own"].values > 1 for run in runs])
    flagged = (
        f"Cross-entropy recovered is above one in {above.sum()} of the {above.size} checkpoint reconstructions, with"
        f" own codes in {own.sum()}: a reconstruction loses information, so the gain comes from other checkpoints or is"
        " sampling noise."
        if above.any()
        else "Cross-entropy recovered is nowhere above one."
    )
    first = runs[0]
    parts = [
        f"{unsupported} of {measurable} at {checkpoint}"
        for checkpoint, (unsupported, measurable) in unsupported_counts(first).items()
    ]
    return (
        f"{flagged} In {first.key.label}, of the features with a measurable effect at a checkpoint,"
        f" {listed(parts)} have a code that cannot be predicted from that checkpoint’s activations alone."
    )


def unsupported_counts(run: Run) -> dict[str, tuple[int, int]]:
    """Return for each checkpoint how many features with a measurable effect on some task have a code that it lacks.

    Returns:
        By checkpoint, those whose code it does not support, and all of them.
    """
    acting = run.relie["measurable"].any("task").transpose("checkpoint", "feature")
    lacking = acting & ~run.evaluation["code_supported"]
    return {
        checkpoint: (int(lacking.sel(checkpoint=checkpoint).sum()), int(acting.sel(checkpoint=checkpoint).sum()))
        for checkpoint in names(acting, "checkpoint")
    }


def code_part(run: Run) -> Part:
    """Return what gives, at each checkpoint, a feature's decoder norm, latent scaling and support of its code."""
    of_decoder = arrays(run.evaluation, OF_DECODER, "feature", "checkpoint")
    of_decoder |= arrays(run.relie, {"norm": "relative_decoder_norm"}, "feature", "checkpoint")
    return lambda place: {"codes": at(of_decoder, place)}
