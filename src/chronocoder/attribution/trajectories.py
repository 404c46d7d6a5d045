"""Which features of a longer comparison have the same course."""

import warnings

import numpy as np
import xarray as xr
from scipy.cluster.vq import kmeans2

from chronocoder.attribution.measures import UNDECIDED
from chronocoder.config import TrajectorySettings
from chronocoder.stores import labelled

UNCLUSTERED = -1
STARTS = 20
"""Starts of k-means, of which the tightest clusters are kept."""


def cluster_trajectories(relie: xr.Dataset, settings: TrajectorySettings) -> xr.Dataset:
    """Cluster the courses of RelIE over three or more checkpoints, by k-means (Arthur and Vassilvitskii 2007).

    Only features are clustered whose class is decided by its interval, on the tasks where it is. Clusters are numbered
    by the mean place of their share: the earliest come first.

    Args:
        relie: `relative_indirect_effect` (task, checkpoint, feature) and `feature_class` (task, feature).
        settings: number of clusters and seed.

    Returns:
        `trajectory_cluster` (task, feature), -1 where not clustered; `cluster_trajectory` (cluster, checkpoint), the
        mean share; `cluster_size` (cluster,).
    """
    shares = relie["relative_indirect_effect"].transpose("task", "feature", "checkpoint")
    decided = ~relie["feature_class"].isin(UNDECIDED).transpose("task", "feature").values
    labels = np.full(decided.shape, UNCLUSTERED, dtype=np.int32)
    courses = shares.values[decided].astype(np.float64)
    centres, labels[decided] = _cluster(courses, settings)
    sizes = np.bincount(labels[decided], minlength=len(centres))
    return xr.Dataset(
        {
            "trajectory_cluster": labelled(("task", "feature"), labels, "cluster of the feature's course, -1 for none"),
            "cluster_trajectory": labelled(
                ("cluster", "checkpoint"), centres, "mean share of the features in a cluster"
            ),
            "cluster_size": labelled(("cluster",), sizes, "features in a cluster, over all tasks"),
        }
    )


def _cluster(courses: np.ndarray, settings: TrajectorySettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean course of each cluster that is not empty, and the cluster of each course."""
    count = min(settings.clusters, len(np.unique(courses, axis=0)))
    if count == 0:
        return np.zeros((0, courses.shape[1])), np.zeros(0, dtype=np.int32)
    generator = np.random.default_rng(settings.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        found = [kmeans2(courses, count, iter=200, minit="++", seed=generator) for _ in range(STARTS)]
    centres, labels = min(found, key=lambda result: float(((courses - result[0][result[1]]) ** 2).sum()))
    filled = np.unique(labels)
    order = filled[np.argsort(centres[filled] @ np.arange(courses.shape[1]))]
    places = np.zeros(count, dtype=np.int32)
    places[order] = np.arange(len(order))
    return centres[order], places[labels]
