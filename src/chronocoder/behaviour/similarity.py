"""Similarity of two checkpoints' activations on the same tokens."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from chronocoder.plan.sizes import KERNEL_TOKENS
from chronocoder.stores import labelled, strings

Measure = Callable[[np.ndarray, np.ndarray], float]
ONE_WIDTH = "activations of different widths have no entries in common"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over tokens of the cosine of two activation vectors; inputs (token, d_model).

    NaN where their widths differ.
    """
    if a.shape != b.shape:
        return np.nan
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.einsum("td,td->t", a, b) / norms))


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of all entries of two activation matrices (token, d_model); NaN where widths differ."""
    if a.shape != b.shape:
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Return linear centred kernel alignment (Kornblith et al. 2019, eq. 3 with linear kernels).

    It is invariant to rotation and to scaling of either space; inputs (token, d_model), widths may differ.
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))


def kernel_entries(
    activations: Float[np.ndarray, "token d_model"], block: int = KERNEL_TOKENS
) -> Float[np.ndarray, " entry"]:
    """Return what linear CKA needs of a checkpoint's activations: few numbers, whatever their width.

    The tokens are dealt out to blocks; of each block's centred matrix of inner products the upper triangle is kept,
    scaled to a mean square of one. It is centred without bias (Székely and Rizzo 2014; for kernels the estimator of
    Song et al. 2012), as in the minibatch CKA of Nguyen et al. 2021: unlike `linear_cka`, that does not grow as tokens
    get few.

    Args:
        activations: of at least 4 tokens.
        block: tokens in a block, fewer where there are no more; what is left over is not used.
    """
    blocks = max(1, len(activations) // block)
    size = len(activations) // blocks
    upper = np.triu_indices(size, 1)
    wide = activations[: blocks * size].astype(np.float64)
    entries = np.concatenate([_centred(wide[first::blocks])[upper] for first in range(blocks)])
    scaled: np.ndarray = entries / np.sqrt(np.mean(entries**2))
    return scaled


def _centred(rows: np.ndarray) -> np.ndarray:
    """Return the inner products of rows, with a diagonal of zeros, U-centred but for the diagonal."""
    products = rows @ rows.T
    np.fill_diagonal(products, 0)
    size = len(products)
    sums = products.sum(axis=0) / (size - 2)
    centred: np.ndarray = products - sums - sums[:, None] + sums.sum() / (size - 1)
    return centred


def debiased_cka(entries: Float[np.ndarray, "checkpoint entry"]) -> Float[np.ndarray, "checkpoint other"]:
    """Return the linear CKA of every two checkpoints, from what `kernel_entries` returns of each on the same tokens."""
    wide = entries.astype(np.float32)
    products = (wide @ wide.T).astype(np.float64)
    norms = np.sqrt(np.diag(products))
    similar: np.ndarray = products / norms / norms[:, None]
    return similar


MEASURES: dict[str, tuple[Measure, str]] = {
    "cosine": (cosine, "mean cosine of the activations of the same token"),
    "pearson": (pearson, "correlation of all activation entries"),
    "linear_cka": (linear_cka, "linear centred kernel alignment"),
}


def compare_activations(
    activations: Mapping[str, Mapping[str, np.ndarray]], tokens_seen: Mapping[str, int]
) -> xr.Dataset:
    """Compare every two checkpoints by every measure at every site.

    Args:
        activations: by site, then revision: shape (token, d_model), the same tokens in the same order.
        tokens_seen: tokens seen by revision.

    Returns:
        Dims (site, checkpoint, other_checkpoint); a measure that is undefined (NaN) somewhere has the reason in its
        attribute `undefined`.
    """
    revisions = list(next(iter(activations.values())))
    dims = ("site", "checkpoint", "other_checkpoint")
    variables = {
        name: labelled(dims, np.stack([_matrix(of_site, measure) for of_site in activations.values()]), long_name)
        for name, (measure, long_name) in MEASURES.items()
    }
    for values in variables.values():
        if np.isnan(values).any():
            values.attrs["undefined"] = ONE_WIDTH
    return xr.Dataset(
        variables,
        coords={
            "site": strings(list(activations)),
            "checkpoint": strings(revisions),
            "other_checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in revisions]),
        },
    )


def _matrix(of_site: Mapping[str, np.ndarray], measure: Measure) -> np.ndarray:
    wide = [values.astype(np.float64) for values in of_site.values()]
    matrix = np.empty((len(wide), len(wide)))
    for row, a in enumerate(wide):
        for column, b in enumerate(wide[: row + 1]):  # every measure is symmetric
            matrix[row, column] = matrix[column, row] = measure(a, b)
    return matrix
