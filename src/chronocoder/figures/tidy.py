"""The numbers of a figure as a table of one row for each mark."""

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr


def tidy(store: xr.Dataset, columns: Mapping[str, str], dims: Sequence[str]) -> pd.DataFrame:
    """Return variables as columns, with a row for each place along dimensions, which become columns as well.

    Args:
        store: holds the variables, which have some or all of the dimensions.
        columns: names of the columns by variable.
        dims: in the order in which rows go through them, the last one fastest.
    """
    frame = store[list(columns)].to_dataframe(dim_order=list(dims)).reset_index()
    return frame[[*dims, *columns]].rename(columns=dict(columns))
