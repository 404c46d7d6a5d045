"""How well one measure of features predicts another: labelled arrays in, labelled arrays out."""

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


def _paired(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    first, second = xr.broadcast(first, second)
    both = first.notnull() & second.notnull()
    return first.where(both), second.where(both)


def _ranks(values: xr.DataArray, dim: str) -> xr.DataArray:
    ranks: xr.DataArray = xr.apply_ufunc(
        rankdata, values, input_core_dims=[[dim]], output_core_dims=[[dim]], kwargs={"axis": -1, "nan_policy": "omit"}
    )
    return ranks
