"""Tasks as points whose distances tell how dissimilar they are, and how similar two such configurations are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import orthogonal_procrustes

from chronocoder.taskspace.relabelling import in_parts

AXES = 2
ROUNDING = 1e-9
"""Eigenvalues and norms up to this are zero: similarities are of the order of 1."""


class Configuration(NamedTuple):
    """Points by classical multidimensional scaling.

    Attributes:
        points: the tasks along all axes of positive eigenvalue, by descending eigenvalue; centred.
        eigenvalues: all eigenvalues, descending. Negative ones stand for what no points have as distances.
    """

    points: Float[np.ndarray, "task axis"]
    eigenvalues: Float[np.ndarray, " task"]

    def explained(self, axes: int = AXES) -> Float[np.ndarray, " axis"]:
        """Return the eigenvalues of the first axes as fractions of the sum of all by size (Mardia 1978)."""
        found = np.maximum(np.pad(self.eigenvalues, (0, axes))[:axes], 0)
        return found / self.size if self.size > ROUNDING else np.full(axes, np.nan)

    @property
    def negative(self) -> float:
        """The negative eigenvalues as a fraction of the sum of all by size: what no points have as distances."""
        return float(np.maximum(-self.eigenvalues, 0).sum()) / self.size if self.size > ROUNDING else np.nan

    @property
    def size(self) -> float:
        """Sum of the eigenvalues by size."""
        return float(abs(self.eigenvalues).sum())

    def position(self, axes: int = AXES) -> Float[np.ndarray, "task axis"]:
        """Return the points along the first axes; zero along those that they do not need."""
        found = np.zeros((len(self.points), axes))
        found[:, : self.points.shape[1]] = self.points[:, :axes]
        return found


def classical_scaling(similarity: Float[np.ndarray, "task task"]) -> Configuration:
    """Return points whose squared distances are twice the dissimilarity 1 - s, as well as points can (Torgerson 1952).

    For cosines these are the distances of unit vectors. The sign of an axis is arbitrary: the coordinate of largest
    size is positive.
    """
    if not len(similarity):
        return Configuration(np.empty((0, 0)), np.empty(0))
    squared = 2 * (1 - similarity)
    centring = np.eye(len(squared)) - 1 / len(squared)
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    values, vectors = values[::-1], vectors[:, ::-1]
    positive = values > ROUNDING
    points = vectors[:, positive] * np.sqrt(values[positive])
    largest = np.take_along_axis(points, abs(points).argmax(axis=0)[None], axis=0)
    return Configuration(points * np.sign(largest), values)


def rotated_onto(
    points: Float[np.ndarray, "task axis"], reference: Float[np.ndarray, "task axis"]
) -> Float[np.ndarray, "task axis"]:
    """Return points moved, rotated and reflected, not stretched, onto a reference, by the tasks that have both.

    Points that are NaN stay so. With fewer than two tasks in common nothing is moved.
    """
    both = np.isfinite(points).all(axis=1) & np.isfinite(reference).all(axis=1)
    if both.sum() < 2:
        return points
    centre, onto = points[both].mean(axis=0), reference[both].mean(axis=0)
    rotation, _ = orthogonal_procrustes(points[both] - centre, reference[both] - onto)
    rotated: np.ndarray = (points - centre) @ rotation + onto
    return rotated


def procrustes_similarities(
    first: Float[np.ndarray, "task axis"],
    second: Float[np.ndarray, "task other_axis"],
    orders: Int[np.ndarray, "relabelling task"],
) -> Float[np.ndarray, " relabelling"]:
    """Return 1 - Procrustes disparity of two configurations, the second relabelled.

    One where they are the same but for place, size, rotation and reflection. It is the square of the sum of the
    singular values of X'Y, with X and Y centred and of unit norm; `scipy.spatial.procrustes` returns the disparity. NaN
    where all points of one are the same.
    """
    first, second = (points - points.mean(axis=0) for points in (first, second))
    sizes = np.linalg.norm(first) * np.linalg.norm(second)
    if sizes <= ROUNDING:
        return np.full(len(orders), np.nan)
    products = (np.einsum("ta,rtb->rab", first, second[part]) for part in in_parts(orders))
    traces = [np.linalg.svd(product, compute_uv=False).sum(axis=-1) for product in products]
    found: np.ndarray = np.square(np.concatenate(traces) / sizes)
    return found
