"""How well one measure of features predicts another: labelled arrays in, labelled arrays out."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import rankdata

FEWEST = 3
"""Any two points lie on a line: a correlation of fewer than three says nothing."""


def pearson(first: xr.DataArray, second: xr.DataArray, dim: str) -> xr.DataArray:
    """Return the linear correlation along a dimension, over the places where both are defined.

    NaN where these are fewer than three, or one of the two is constant.
    """
    first, second = _paired(first, second)
    # Ranks are exact: the deviation of constant values is zero by them, and not rounding.
    varied = [_ranks(values, dim).std(dim) > 0 for values in (first, second)]
    defined = varied[0] & varied[1] & (first.count(dim) >= FEWEST)
    correlation: xr.DataArray = xr.corr(first.astype("float64"), second.astype("float64"), dim=dim).where(defined)
    return correlation


def spearman(first: xr.DataArray, second: xr.DataArray, dim: str) -> xr.DataArray:
    """Return the rank correlation along a dimension, with mean ranks for ties; undefined as `pearson`."""
    one, other = (_ranks(values, dim) for values in _paired(first, second))
    return pearson(one, other, dim)


class ClassAgreement(NamedTuple):
    """How far two classifications agree.

    Attributes:
        fraction: of the places compared, those of the same class; NaN where none are compared.
        kappa: Cohen's kappa, agreement beyond chance; NaN also where chance alone makes all agree.
    """

    fraction: xr.DataArray
    kappa: xr.DataArray


def class_agreement(first: xr.DataArray, second: xr.DataArray, compared: xr.DataArray, dim: str) -> ClassAgreement:
    """Compare two classifications along a dimension, where `compared` is true."""
    count = compared.sum(dim)
    fraction = ((first == second) & compared).sum(dim) / count
    chance = xr.zeros_like(fraction)
    for name in np.union1d(first.values, second.values):
        own, other = (((classes == name) & compared).sum(dim) / count for classes in (first, second))
        chance = chance + own * other
    kappa = (fraction - chance) / (1 - chance)
    return ClassAgreement(fraction, kappa.where(chance < 1))


def _paired(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    first, second = xr.broadcast(first, second)
    both = first.notnull() & second.notnull()
    return first.where(both), second.where(both)


def _ranks(values: xr.DataArray, dim: str) -> xr.DataArray:
    ranks: xr.DataArray = xr.apply_ufunc(
        rankdata, values, input_core_dims=[[dim]], output_core_dims=[[dim]], kwargs={"axis": -1, "nan_policy": "omit"}
    )
    return ranks
