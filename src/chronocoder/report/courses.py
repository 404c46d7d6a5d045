"""The clusters that features' trajectories over three or more checkpoints fall into."""

import xarray as xr

DECIDED = ("emerged", "maintained", "discontinued", "transient", "intermittent")


def course_counts(relie: xr.Dataset) -> list[list[int]]:
    """Return for each cluster its size, and how many of its feature–task pairs are of each class in `DECIDED`."""
    if "cluster_size" not in relie:
        return []
    cluster = relie["trajectory_cluster"].transpose("task", "feature").values
    classes = relie["feature_class"].transpose("task", "feature").values
    return [
        [int(size), *(int(((cluster == number) & (classes == name)).sum()) for name in DECIDED)]
        for number, size in enumerate(relie["cluster_size"].values)
    ]
