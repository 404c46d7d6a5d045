"""Whether tasks lie as hypothesised over training: a table and sentences."""

import numpy as np
import xarray as xr

from chronocoder.figures.space import P_SHOWN, TRANSFER
from chronocoder.stores import names
from chronocoder.wording import decimal, in_words, p_number, p_words

COARSE_P = 0.01
"""Where the smallest p-value that there can be is not below this, it is told."""
SPACE_COLUMNS = (
    "Within groups",
    "Between groups",
    "Difference",
    "p",
    "Stability",
    "Relabelled",
    "Between seeds",
    "Agreement of bases",
)


def space_tables(space: xr.Dataset) -> dict[str, list[tuple[str, list[str]]]]:
    """Return for each basis the numbers of every checkpoint."""
    return {
        f"From {in_words(basis)}": [
            (checkpoint, _numbers(space.sel(basis=basis).isel(checkpoint=place), basis))
            for place, checkpoint in enumerate(names(space, "checkpoint"))
        ]
        for basis in names(space, "basis")
    }


def contrast_sentences(space: xr.Dataset) -> list[str]:
    """Return for each basis whether tasks of a group are more similar than others at the end, and since when."""
    return [_contrast_sentence(space.sel(basis=basis), basis) for basis in names(space, "basis")]


def stability_sentence(space: xr.Dataset) -> str:
    """Return how alike the spaces from transfer of successive checkpoints are, beside both controls; empty of one."""
    of_transfer = space.sel(basis=TRANSFER)
    if not of_transfer["stability"].notnull().any():
        return ""
    stable, chance, before, seeds = (
        decimal(float(of_transfer[name].mean()))
        for name in ("stability", "stability_chance", "seed_stability_before", "seed_stability")
    )
    sentence = (
        f"Spaces from transfer at successive checkpoints have a Procrustes similarity of {stable} on average, {chance}"
        " with tasks relabelled."
    )
    if not of_transfer["seed_stability"].notnull().any():
        return sentence
    between = f" Between two seeds of tuning it is {before} at successive checkpoints and {seeds} at the same one."
    return sentence + between


def _contrast_sentence(of_basis: xr.Dataset, basis: str) -> str:
    last, p_values = of_basis.isel(checkpoint=-1), of_basis["contrast_p"].values
    checkpoints = names(of_basis, "checkpoint")
    within, between, contrast, low, high, p_value = (
        float(last[name]) for name in ("within", "between", "contrast", "contrast_low", "contrast_high", "contrast_p")
    )
    where = f"At {checkpoints[-1]}, {'relative transfer' if basis == TRANSFER else 'gradient similarity'}"
    if not np.isfinite(contrast):
        return f"{where} within hypothesised groups cannot be compared with that between them."
    beyond = p_value < P_SHOWN and contrast > 0
    verdict = "is larger within" if beyond else "is not found to be larger within"
    text = (
        f"{where} {verdict} hypothesised groups than between them: {decimal(within)} against {decimal(between)},"
        f" difference {decimal(contrast)} ({decimal(low)} to {decimal(high)}), {p_words(p_value)} by relabelling tasks"
    )
    smallest = float(last["contrast_smallest_p"])
    if smallest >= COARSE_P:
        text = f"{text} (the smallest that such groups allow is {smallest:.2g})"
    if not beyond or len(checkpoints) == 1:
        return f"{text}."
    holds = (p_values < P_SHOWN) & (of_basis["contrast"].values > 0)
    since = checkpoints[len(holds) - int(np.argmin(holds[::-1]))] if not holds.all() else checkpoints[0]
    return f"{text}; this holds from {since} on."


def _numbers(at: xr.Dataset, basis: str) -> list[str]:
    contrast, low, high = (decimal(float(at[f"contrast{end}"])) for end in ("", "_low", "_high"))
    seeds = decimal(float(at["seed_stability"])) if basis == TRANSFER else "–"
    agreement = float(at["agreement"])
    agrees = f"{decimal(agreement)} ({p_words(float(at['agreement_p']))})" if np.isfinite(agreement) else "–"
    return [
        decimal(float(at["within"])),
        decimal(float(at["between"])),
        f"{contrast} ({low} to {high})" if np.isfinite(float(at["contrast_low"])) else contrast,
        p_number(float(at["contrast_p"])),
        decimal(float(at["stability"])),
        decimal(float(at["stability_chance"])),
        seeds,
        agrees,
    ]
