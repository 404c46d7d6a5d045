"""What one dictionary for several checkpoints is worth: beside one for each, whose features are matched afterwards.

Features of dictionaries of single checkpoints are matched by the cosine of their decoder rows, as features of seeds are
(`chronocoder.attribution.seeds`). A *track* is one feature of each of them: what stands in for a joint feature where no
joint dictionary has been trained. Both are judged by the share of the joint features' exact effects.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from chronocoder.attribution.agreement import class_agreement, spearman
from chronocoder.attribution.measures import course, share, threshold_of
from chronocoder.attribution.seeds import COSINES_AT_LEAST, check_effects, decoder_rows, match_features
from chronocoder.config import EXACT
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings

BASELINE, JOINT, RELDEC = (
    "baseline_relative_indirect_effect",
    "joint_relative_indirect_effect",
    "joint_relative_decoder_norm",
)
MEASURES = [BASELINE, JOINT, RELDEC]
SAME = ("suite", "variant", "site", "d_model", "settings", "seed")

LONG_NAMES = {
    "track_feature": "feature of each checkpoint's own dictionary that the track is made of; the last one's names it",
    "track_cosine": "cosine of its decoder row with that of the last checkpoint's dictionary",
    "matched_track": "track that the joint feature is matched with",
    "match_cosine": "cosine of the decoder rows of the two, all checkpoints side by side in normalised units",
    "features_matched": "joint features matched with a track, both cosines being at least this",
    "features_compared": "those of them that are exactly ablated on the task and have a share by every measure",
    "spearman": "rank correlation with the share of the exact effects",
    "mean_absolute_difference": "mean absolute difference from the share of the exact effects",
    "class_agreement": "fraction of the features whose class is that of the exact shares",
    "class_kappa": "Cohen's kappa of the classes: agreement beyond chance",
}
"""Name in words of each variable; all of them are dimensionless."""


def compare_baseline(
    joint: Crosscoder,
    relie: xr.Dataset,
    ablations: Mapping[str, xr.Dataset],
    singles: Sequence[Crosscoder],
    single_relies: Sequence[xr.Dataset],
) -> xr.Dataset:
    """Compare a joint dictionary with those of its checkpoints alone.

    Args:
        joint: the joint crosscoder.
        relie: its effects, dims (task, checkpoint, feature).
        ablations: its exact effects by task, `indirect_effect` (estimator, checkpoint, feature).
        singles: the crosscoder of each of its checkpoints, in order.
        single_relies: their effects, in the same order.

    Returns:
        The variables of `match_tracks`, `match_joint` and `judge_shares`.

    Raises:
        StoreError: they do not belong together; the message names what differs.
    """
    _check_singles(joint, singles)
    for crosscoder, effects in zip([joint, *singles], [relie, *single_relies], strict=True):
        check_effects(crosscoder, effects)
    _check_tasks(relie, ablations, single_relies)
    everything = np.arange(joint.config.settings.dictionary_size)
    rows = [decoder_rows(single, everything) for single in singles]
    tracks = match_tracks(rows)
    matches = match_joint(decoder_rows(joint, everything), rows, tracks)
    exact = {task: _exact_shares(dataset) for task, dataset in ablations.items()}
    by_measure = {BASELINE: track_shares(single_relies, tracks, matches), **_joint_shares(relie)}
    shares = xr.concat([_bare(values) for values in by_measure.values()], dim="measure", join="exact")
    judged = judge_shares(shares.assign_coords(measure=strings(MEASURES)), exact, lowest_cosine(tracks, matches))
    found = xr.merge([tracks, matches, judged], join="exact", compat="equals")
    described = found.assign({name: _described(found[name], str(name)) for name in found.data_vars})
    return described.assign_coords(tokens_seen=("checkpoint", relie["tokens_seen"].values))


def match_tracks(rows: Sequence[xr.DataArray]) -> xr.Dataset:
    """Match the features of every dictionary one to one with those of the last one.

    Args:
        rows: decoder rows of each checkpoint's dictionary, as `decoder_rows` returns them; of equally many features.

    Returns:
        `track_feature` and `track_cosine` (track, checkpoint); a track has the number of its last feature.
    """
    matches = [match_features(rows[-1], of_checkpoint) for of_checkpoint in rows[:-1]]
    last = rows[-1]["feature"].values
    features = [*(match["matched_feature"].values for match in matches), last]
    cosines = [*(match["cosine"].values for match in matches), np.ones(len(last), dtype=np.float32)]
    dims = ("track", "checkpoint")
    checkpoints = np.concatenate([of_checkpoint["checkpoint"].values for of_checkpoint in rows])
    return xr.Dataset(
        {"track_feature": (dims, np.stack(features, axis=1)), "track_cosine": (dims, np.stack(cosines, axis=1))},
        coords={"track": last, "checkpoint": strings(checkpoints)},
    )


def match_joint(joint: xr.DataArray, rows: Sequence[xr.DataArray], tracks: xr.Dataset) -> xr.Dataset:
    """Match joint features one to one with tracks, by the rows of all checkpoints side by side in normalised units.

    Args:
        joint: decoder rows of the joint dictionary, dims (feature, checkpoint, d_model); of as many features.
        rows: as for `match_tracks`.
        tracks: what that returns.

    Returns:
        `matched_track` and `match_cosine` (feature,).
    """
    features = tracks["track_feature"].values.T
    of_tracks = np.concatenate([own.sel(feature=of).values for own, of in zip(rows, features, strict=True)], axis=1)
    side = xr.DataArray(of_tracks, dims=joint.dims, coords={"feature": tracks["track"].values})
    return match_features(joint, side).rename(matched_feature="matched_track", cosine="match_cosine")


def lowest_cosine(tracks: xr.Dataset, matches: xr.Dataset) -> xr.DataArray:
    """Return the lower one of a joint feature's cosine with its track and the lowest in the track, dims (feature,)."""
    within = tracks["track_cosine"].min("checkpoint").sel(track=matches["matched_track"]).drop_vars("track")
    lower: xr.DataArray = within.where(within < matches["match_cosine"], matches["match_cosine"])
    return lower


def track_shares(single_relies: Sequence[xr.Dataset], tracks: xr.Dataset, matches: xr.Dataset) -> xr.DataArray:
    """Return the RelIE of each joint feature's track, of effects that each checkpoint's own dictionary has.

    Args:
        single_relies: effects of each checkpoint's dictionary, `indirect_effect` (task, checkpoint, feature).
        tracks: as `match_tracks` returns it.
        matches: as `match_joint` returns it.

    Returns:
        Dims (task, checkpoint, feature), the joint dictionary's features; NaN where the track has no effect.
    """
    features = tracks["track_feature"].sel(track=matches["matched_track"]).transpose("checkpoint", "feature").values
    effects = [
        relie["indirect_effect"].isel(checkpoint=0, drop=True).sel(feature=own).drop_vars("feature")
        for relie, own in zip(single_relies, features, strict=True)
    ]
    joined = xr.concat(effects, dim="checkpoint").transpose("task", "checkpoint", "feature")
    return share(joined.assign_coords(checkpoint=tracks["checkpoint"].values, feature=matches["feature"].values))


def judge_shares(shares: xr.DataArray, exact: Mapping[str, xr.DataArray], cosine: xr.DataArray) -> xr.Dataset:
    """Say how far shares by each measure, and the classes that follow from them, agree with those of exact effects.

    A feature is present at a checkpoint where its share exceeds 0.6 / M; its class is its course, by the point value.
    All measures are compared on the same features: those ablated that have a share by each of them.

    Args:
        shares: dims (measure, task, checkpoint, feature).
        exact: shares of the exact effects (checkpoint, feature) of the features ablated, by task.
        cosine: what the cosines of a feature's match are at least, dims (feature,).

    Returns:
        `features_matched` (cosine_at_least,), `features_compared` (cosine_at_least, task), `spearman` and
        `mean_absolute_difference` (measure, cosine_at_least, task, checkpoint), `class_agreement` and `class_kappa`
        (measure, cosine_at_least, task). NaN where too few features are left, or all are equal.
    """
    judged = xr.concat(
        [_over_cosines(shares.sel(task=task, drop=True), reference, cosine) for task, reference in exact.items()],
        dim="task",
    )
    matched = [int((cosine >= least).sum()) for least in COSINES_AT_LEAST]
    ordered = judged.assign_coords(task=strings(list(exact))).transpose(
        "measure", "cosine_at_least", "task", "checkpoint", missing_dims="ignore"
    )
    return ordered.assign(features_matched=("cosine_at_least", matched))


def _over_cosines(shares: xr.DataArray, reference: xr.DataArray, cosine: xr.DataArray) -> xr.Dataset:
    shares, cosine = (values.sel(feature=reference["feature"].values) for values in (shares, cosine))
    defined = (shares.notnull().all("measure") & reference.notnull()).all("checkpoint")
    judged = []
    for least in COSINES_AT_LEAST:
        kept = np.flatnonzero((defined & (cosine >= least)).values)
        judged.append(_judge(shares.isel(feature=kept), reference.isel(feature=kept)))
    return xr.concat(judged, dim="cosine_at_least").assign_coords(cosine_at_least=list(COSINES_AT_LEAST))


def _judge(shares: xr.DataArray, reference: xr.DataArray) -> xr.Dataset:
    own, expected = (course(values > threshold_of(values)) for values in (shares, reference))
    agreement, kappa = class_agreement(own, expected, xr.ones_like(own, dtype=bool), "feature")
    return xr.Dataset(
        {
            "features_compared": reference.sizes["feature"],
            "spearman": spearman(shares, reference, "feature"),
            "mean_absolute_difference": abs(shares - reference).mean("feature"),
            "class_agreement": agreement,
            "class_kappa": kappa,
        }
    )


def _exact_shares(ablation: xr.Dataset) -> xr.DataArray:
    return _bare(share(ablation["indirect_effect"].sel(estimator=EXACT)))


def _joint_shares(relie: xr.Dataset) -> dict[str, xr.DataArray]:
    effects, norms = relie["relative_indirect_effect"], relie["relative_decoder_norm"]
    return {JOINT: effects, RELDEC: norms.broadcast_like(effects)}


def _bare(values: xr.DataArray) -> xr.DataArray:
    """Return an array without coordinates beside those of its dimensions, and without attributes."""
    return values.reset_coords(drop=True).drop_attrs()


def _check_singles(joint: Crosscoder, singles: Sequence[Crosscoder]) -> None:
    checkpoints, commits = joint.config.checkpoints, joint.config.commits
    if len(singles) != len(checkpoints):
        raise StoreError(
            f"the joint crosscoder is of {len(checkpoints)} checkpoints, but {len(singles)} single crosscoders are"
            " given; give one for each"
        )
    for single, checkpoint, commit in zip(singles, checkpoints, commits, strict=True):
        config = single.config
        pairs = {key: (getattr(joint.config, key), getattr(config, key)) for key in SAME}
        pairs |= {"checkpoints": ((checkpoint,), config.checkpoints), "commits": ((commit,), config.commits)}
        for key, (expected, found) in pairs.items():
            if expected != found:
                raise StoreError(
                    f"crosscoder of {config.comparison}: '{key}' is {found}, where the joint crosscoder of"
                    f" {joint.config.comparison} needs {expected}; give single crosscoders in the order of the"
                    " checkpoints, trained alike"
                )


def _check_tasks(relie: xr.Dataset, ablations: Mapping[str, xr.Dataset], single_relies: Sequence[xr.Dataset]) -> None:
    tasks = [str(task) for task in relie["task"].values]
    given = [[str(task) for task in of_single["task"].values] for of_single in single_relies]
    for found in (list(ablations), *given):
        if found != tasks:
            raise StoreError(
                f"effects of the joint crosscoder are on the tasks {', '.join(tasks)}, others on {', '.join(found)};"
                " give the same tasks in the same order"
            )
    for task, dataset in ablations.items():
        for key in ("suite", "comparison", "variant", "seed", "commits"):
            if dataset.attrs.get(key) != relie.attrs[key]:
                raise StoreError(
                    f"ablations of task '{task}': '{key}' is {dataset.attrs.get(key)}, not {relie.attrs[key]}; give"
                    " those of the joint crosscoder"
                )


def _described(values: xr.DataArray, name: str) -> xr.Variable:
    return labelled(tuple(map(str, values.dims)), values.values, LONG_NAMES[name])
