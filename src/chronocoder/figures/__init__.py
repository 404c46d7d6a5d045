"""The report's figures, for notebooks and papers: one function each, from an xarray object to a matplotlib figure."""
