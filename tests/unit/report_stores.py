"""Small stores for reports: two tasks of which a surface rule solves one, made by hand."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import xarray as xr

from chronocoder.attribution.measures import CLASSES
from chronocoder.config import AttributionSettings
from chronocoder.report.inputs import Contrast, ReportInputs, Run, RunKey
from chronocoder.stores import labelled, provenance, strings
from chronocoder.tasks.groups import KINDS, Group, group_coordinates, name_tasks, task_variables
from chronocoder.tasks.reasons import REASONS

CONTRAST = Contrast("near", "far")
CONDITIONS = ["near one", "far one", "far two"]
DRAWS = ("random directions 0", "random directions 1")
REVISIONS = ["step0", "step10", "step20"]
TOKENS_SEEN = [0, 1_000, 50_000]
HOSTILE = " </script><b>&amp;"
FEATURES = 6


def task_facts(language: str = "", phenomenon: str = "", **facts: str | int) -> xr.Dataset:
    """What a task's store tells of it: ten pairs, of which one is left out."""
    named = {"language": language, "phenomenon": phenomenon, "metric": "next_token", "unit": "logit"}
    words = {"metric_reason": "all pairs can be used", "warnings": ""}
    counts = {"pairs_given": 10, "several_tokens": 0, "ties": 0, "left_out_length": 1}
    return xr.Dataset(attrs={**named, **words, **counts, **facts})


FACTS = {"near": task_facts("english", "agreement"), "far": task_facts("french", "agreement")}
SENTENCES = {
    "metric": "sentence",
    "unit": "nat",
    "left_out_length": 0,
    "ties": 2,
    "warnings": "made for <other> metrics",
}


def behaviour_store(near: list[float], far: list[float], tokens_seen: list[int] = TOKENS_SEEN) -> xr.Dataset:
    return suite_behaviour(np.array([near, far]), FACTS, tokens_seen)


def many_tasks(count: int = 14) -> xr.Dataset:
    """Accuracies on so many tasks by turns about agreement, binding and nothing named; the last one has a warning."""
    phenomena = ["agreement", "binding", ""]
    facts = {f"task_{place}": task_facts(phenomenon=phenomena[place % 3]) for place in range(count)}
    facts[f"task_{count - 1}"].attrs["warnings"] = "made for <other> metrics"
    accuracy = np.linspace(0.5, 0.95, count)[::-1, None] * np.array([0.5, 0.75, 1.0])
    return suite_behaviour(accuracy, facts)


def suite_behaviour(
    accuracy: np.ndarray, facts: dict[str, xr.Dataset], tokens_seen: list[int] = TOKENS_SEEN
) -> xr.Dataset:
    """Accuracies of shape (task, checkpoint), with means of groups by language and phenomenon if several are named."""
    dims = ("task", "checkpoint")
    store = xr.Dataset(
        {
            "accuracy": labelled(dims, accuracy, "accuracy"),
            "accuracy_low": labelled(dims, np.clip(accuracy - 0.05, 0, 1), "low"),
            "accuracy_high": labelled(dims, np.clip(accuracy + 0.05, 0, 1), "high"),
            "mean_difference": labelled(dims, 4 * accuracy - 2, "difference"),
            "n": labelled(dims, np.full(accuracy.shape, 9), "pairs"),
        },
        coords={"checkpoint": strings(REVISIONS), "tokens_seen": ("checkpoint", tokens_seen)},
    )
    named = name_tasks(store, facts).assign(task_variables(facts)).assign_coords(reason=strings(list(REASONS)))
    groups = groups_in(named)
    if not groups:
        return named
    means = np.array([accuracy[group.tasks].mean(axis=0) for group in groups])
    ends = {f"group_accuracy{end}": means + width for end, width in (("", 0.0), ("_low", -0.025), ("_high", 0.025))}
    of_groups = {name: labelled(("group", "checkpoint"), values, name) for name, values in ends.items()}
    return named.assign(of_groups).assign_coords(group_coordinates(groups))


def groups_in(named: xr.Dataset) -> list[Group]:
    """Groups by language and by phenomenon where several are named, even if each is of one task."""
    groups = []
    for kind in KINDS:
        of_tasks = [str(name) for name in named[kind].values]
        found = list(dict.fromkeys(filter(None, of_tasks)))
        own = [[place for place, name in enumerate(of_tasks) if name == group] for group in found]
        if len(found) > 1:
            groups += [Group(kind, name, np.array(places)) for name, places in zip(found, own, strict=True)]
    return groups


def relie_store(
    near: list[list[float]],
    far: list[list[float]],
    classes: list[str],
    margin: float = 0.1,
    other: list[list[float]] | None = None,
) -> xr.Dataset:
    """Effects by task, dims (checkpoint, feature), of the last checkpoints; the same classes for both tasks.

    The near task is English and has one condition, the far one is French and has two; in the second of them, `other` is
    what features do. Random directions are without effect, those of each draw stand in for all features.
    """
    effect = np.array([near, far])
    dims, of_feature = ("task", "checkpoint", "feature"), ("task", "feature")
    with np.errstate(invalid="ignore"):
        share = abs(effect) / abs(effect).sum(axis=1, keepdims=True)
    revisions = REVISIONS[-effect.shape[1] :]
    seen, level = abs(effect) > margin, margin / 2
    reverses = (effect > margin).any(axis=1) & (effect < -margin).any(axis=1)
    by_condition = condition_effects(effect, other)
    condition_dims, where = ("task", "condition", "checkpoint", "feature"), ("task", "condition")
    condition_classes = np.where(np.isfinite(by_condition).all(axis=2), np.array(classes, dtype=object), "")
    values = {
        "relative_decoder_norm": (dims[1:], np.full(effect.shape[1:], 0.5)),
        "measurable": (dims, seen),
        "q_value": (dims, np.where(seen, 0.001, 1.0)),
        "reverses": (of_feature, reverses),
        "conditions_disagree": (dims, np.nanmin(by_condition, axis=1) * np.nanmax(by_condition, axis=1) < 0),
        "kept": (of_feature, np.array([[name == "emerged" for name in classes]] * 2)),
        "random_level": (dims, np.full(effect.shape, level)),
        "prefixes": (where, np.array([[10, 0, 0], [0, 10, 10]])),
        "condition_random_level": (condition_dims, np.full(by_condition.shape, level)),
        "condition_measurable": (condition_dims, abs(by_condition) > margin),
        "condition_q_value": (condition_dims, np.where(abs(by_condition) > margin, 0.001, 1.0)),
        "condition_feature_class": ((*where, "feature"), strings(condition_classes)),
        "condition_reverses": (
            (*where, "feature"),
            (by_condition > margin).any(axis=2) & (by_condition < -margin).any(axis=2),
        ),
    }
    for name, of, width in (("indirect_effect", effect, margin), ("relative_indirect_effect", share, 0.0)):
        values |= {name: (dims, of), f"{name}_low": (dims, of - width), f"{name}_high": (dims, of + width)}
    halves = np.stack([by_condition] * 2, axis=1)
    for end, width in (("", 0.0), ("_low", -margin), ("_high", margin)):
        values[f"condition_indirect_effect{end}"] = (condition_dims, by_condition + width)
        values[f"half_indirect_effect{end}"] = (("task", "half", *condition_dims[1:]), halves + width)
    for name, value in {"activation_frequency": 0.25, "mean_activation": 0.5, "class_support": 0.97}.items():
        values[name] = (of_feature, np.full((2, len(classes)), value))
    of_checkpoints = {"error_effect": 0.1, "total_effect": -2.0, "completeness_gap": 0.03}
    for name, value in {**of_checkpoints, "noise_floor": 2e-7, "estimation_error": np.nan}.items():
        values[name] = (dims[:2], np.full(effect.shape[:2], value))
    values["estimator"] = (of_feature, strings([["published"] * len(classes)] * 2))
    for name in ("onset", "peak"):
        values[name] = (of_feature, strings([[revisions[-1]] * len(classes)] * 2))
    of_groups = ("group", *dims[1:])
    for end, width in (("", 0.0), ("_low", -margin), ("_high", margin)):
        values[f"group_indirect_effect{end}"] = (of_groups, effect + width)
    values["group_relative_indirect_effect"] = (of_groups, share)
    store = xr.Dataset(
        {name: labelled(of, array, name) for name, (of, array) in values.items()},
        coords={
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", TOKENS_SEEN[-len(revisions) :]),
            "feature": np.arange(effect.shape[2]),
            "condition": strings(CONDITIONS),
            "half": [0, 1],
        },
    )
    named = name_tasks(store, FACTS)
    named = named.assign_coords(group_coordinates(groups_in(named)))
    return with_classes(named, dict.fromkeys(("published", "total_effect", "metric_size"), classes))


def condition_effects(effect: np.ndarray, other: list[list[float]] | None) -> np.ndarray:
    """Effects by task and condition, NaN where a task lacks the condition."""
    nothing = np.full(effect.shape[1:], np.nan)
    second = np.zeros(effect.shape[1:]) if other is None else np.array(other)
    return np.array([[effect[0], nothing, nothing], [nothing, effect[1], second]])


def with_classes(
    store: xr.Dataset,
    classes: dict[str, list[str]],
    more: dict[str, list[str]] | None = None,
    controls: tuple[str, ...] = DRAWS,
) -> xr.Dataset:
    """The same effects with other classes by basis, and with controls: ten a draw, the first with one that emerged.

    The second draw has two, and so on; one less reverses. Effects of random directions are as large as their level,
    those with shuffled tokens a hundred times as large. `more`: by basis, the classes that are more frequent than
    chance.
    """
    places = [count for count, name in enumerate(controls, start=1) if name in DRAWS]
    p_values = np.full((2, len(CLASSES), 3), 0.5 if places else np.nan)
    for basis, names in (more or {}).items():
        p_values[:, [CLASSES.index(name) for name in names], list(classes).index(basis)] = 0.01
    counts = np.array([[own.count(name) for own in classes.values()] for name in CLASSES])
    has_condition = store["prefixes"].values > 0
    others = np.array([[count * (name == "emerged") for name in CLASSES] for count in range(1, len(controls) + 1)])
    others = others.reshape(len(controls), len(CLASSES)).T
    others[CLASSES.index("no effect")] = 10 - others.sum(axis=0)
    whole, shares = ("task", "class", "control"), normalised_shares(store["indirect_effect"].values)
    values = {
        **{
            f"normalised_relative_indirect_effect{end}": (("task", "normalisation", "checkpoint", "feature"), shares)
            for end in ("", "_low", "_high")
        },
        "feature_class": (("task", "feature"), strings([classes["published"]] * 2)),
        "normalised_class": (
            ("task", "normalisation", "feature"),
            strings([[own for basis, own in classes.items() if basis != "published"]] * 2),
        ),
        "features_tested": (("task",), np.full(2, store.sizes["feature"])),
        "reverses_count": (("task",), store["reverses"].sum("feature").values),
        "class_count": (("task", "class", "basis"), np.stack([counts] * 2)),
        "condition_class_count": (
            ("task", "class", "condition", "basis"),
            counts[None, :, None] * has_condition[:, None, :, None],
        ),
    }
    if controls:
        sizes = np.array([1 if name in DRAWS else 100 for name in controls])[:, None, None, None]
        levels = np.where(has_condition[..., None, None], store["condition_random_level"].values, np.nan)
        values |= {
            "control_indirect_effect": (
                ("task", "control", "condition", "checkpoint", "feature"),
                -sizes * levels[:, None],
            ),
            "control_reverses_count": (("task", "control"), np.stack([np.arange(len(controls))] * 2)),
            "controls_tested": (("task", "control"), np.full((2, len(controls)), 10)),
            "control_measurable": (
                ("task", "control", "checkpoint", "feature"),
                np.stack([np.stack([store["measurable"].values[0]] * len(controls))] * 2),
            ),
            "control_class_count": ((*whole, "basis"), np.broadcast_to(others[None, ..., None], (2, *others.shape, 3))),
            "condition_control_class_count": (
                (*whole, "condition", "basis"),
                np.broadcast_to(
                    others[None, ..., None, None] * has_condition[:, None, None, :, None], (2, *others.shape, 3, 3)
                ),
            ),
            "class_p_value": (("task", "class", "basis"), p_values),
            "condition_class_p_value": (
                ("task", "class", "condition", "basis"),
                np.broadcast_to(p_values[:, :, None], (*p_values.shape[:2], 3, 3)),
            ),
        }
    coordinates = {"basis": classes, "normalisation": list(classes)[1:], "class": CLASSES, "control": controls}
    return (
        store.drop_dims(coordinates, errors="ignore")
        .drop_vars(values, errors="ignore")
        .assign_coords({name: strings(list(labels)) for name, labels in coordinates.items() if labels})
        .assign({name: labelled(dims, array.copy(), name) for name, (dims, array) in values.items()})
    )


def normalised_shares(effect: np.ndarray) -> np.ndarray:
    """Shares of effects (task, checkpoint, feature) over each checkpoint's total, and over a constant.

    Dims (task, normalisation, checkpoint, feature).
    """
    with np.errstate(invalid="ignore"):
        both = np.stack([effect / abs(effect).sum(axis=2, keepdims=True), effect], axis=1)
        return abs(both) / abs(both).sum(axis=2, keepdims=True)


def six_features() -> xr.Dataset:
    """Feature 0: surface rule that gives way; 1: emerged; 2: surface rule that comes to help in the other condition."""
    near = [[1.0, 0.0, 0.5, 0.05, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0, 0.0, 0.0]]
    far = [[-0.8, 0.0, -0.3, -1.0, 0.0, 0.0], [0.0, 2.0, -0.2, 0.0, -1.0, 0.0]]
    other = [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0, 0.0, 0.0]]
    classes = ["discontinued", "emerged", "emerged", "discontinued", "emerged", "no effect"]
    found = relie_store(near, far, classes, other=other)
    divided = ["discontinued", "maintained", "emerged", "discontinued", "emerged", "no effect"]
    return with_classes(
        found, {"published": classes, "total_effect": divided, "metric_size": divided}, more={"published": ["emerged"]}
    )


def longer(relie: xr.Dataset) -> xr.Dataset:
    """The same effects with a checkpoint before them at which there are none."""
    three = relie.reindex(checkpoint=strings(REVISIONS), fill_value=0)
    marks = [name for name, values in relie.data_vars.items() if values.dtype == bool]
    return three.assign({name: three[name].astype(bool) for name in marks})


def with_clusters(relie: xr.Dataset) -> xr.Dataset:
    """All decided features in one cluster, dims as `cluster_trajectories` gives them."""
    decided = ~relie["feature_class"].isin(["no effect", "uncertain"])
    clusters = xr.where(decided, 0, -1).transpose("task", "feature").values
    return relie.assign(
        trajectory_cluster=labelled(("task", "feature"), clusters, "cluster"),
        cluster_trajectory=labelled(("cluster", "checkpoint"), np.array([[0.0, 0.2, 0.8]]), "mean share"),
        cluster_size=labelled(("cluster",), np.array([int(decided.sum())]), "features"),
    )


def of_sentences(relie: xr.Dataset) -> xr.Dataset:
    """The same effects, those of the far task in nats, on log-probabilities of sentences."""
    facts = FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)}
    return name_tasks(relie, facts)


def ablation_store(relie: xr.Dataset, task: str) -> xr.Dataset:
    """Features 0, 1 and 2 at the top, 4 as control; the exact effect is half the estimate.

    Where two sentences are compared, effects in the wrong one are of the other sign and half as large.
    """
    chosen = [feature for feature in (0, 1, 2, 4) if feature < relie.sizes["feature"]]
    effect = relie["indirect_effect"].sel(task=task, feature=chosen).values
    of_conditions = relie["condition_indirect_effect"].sel(task=task, feature=chosen).dropna("condition", how="all")
    conditions = of_conditions["condition"].values
    by_role = np.stack([np.zeros(of_conditions.shape), of_conditions.values, 0.1 * of_conditions.values], axis=1)
    count = len(effect)
    effects = np.stack([0.6 * effect, effect, 0.5 * effect])
    spearman = np.full((3, count), 0.95)
    spearman[1, -1] = 0.8
    shares = np.tile([[0.7], [0.5], [0.2]], count)
    position = np.zeros((count, len(chosen[:3]), 2, 4))
    position[:, 0] = [[0.0, 0.5, -0.25, np.nan], [0.0, 0.0, 0.75, 0.25]]
    position[:, 1:, 0, 3] = np.nan
    active = np.zeros((len(chosen[:3]), 2, 4), dtype=np.float32)
    active[0] = [[0.0, 1.0, 0.5, np.nan], [0.0, 0.0, 2.0, 0.25]]
    active[1:, 0, 3] = np.nan
    draws, sets, alone = ("checkpoint", "set_size", "draw"), ("checkpoint", "set_size"), ("checkpoint", "feature")
    ends = ("", "_low", "_high")
    pairs = list(combinations(range(count), 2))
    earlier, later = np.array(pairs).T
    whole = effects[2][later] - effects[2][earlier]
    groups = np.tile([0.25, 0.5, 0.75, 0.875], (len(pairs), 1))
    values = {
        **{f"indirect_effect{end}": (("estimator", *alone), effects) for end in ends},
        **{f"condition_indirect_effect{end}": (("condition", *alone), 0.5 * of_conditions.values) for end in ends},
        **{
            f"role_effect{end}": (
                ("condition", "position_role", "checkpoint", "top_feature"),
                by_role[..., : len(chosen[:3])] + width,
            )
            for end, width in (("", 0.0), ("_low", -0.05), ("_high", 0.05))
        },
        **{
            f"{part}_change{end}": (("pair", "feature"), of * whole + width)
            for part, of in (("written", 0.25), ("read", 0.75))
            for end, width in (("", 0.0), ("_low", -0.01), ("_high", 0.01))
        },
        **{f"{part}_sum": (("pair", "group"), of) for part, of in (("written", groups), ("read", 1 - groups))},
        **{
            f"written_share{end}": (("pair", "group"), groups + width)
            for end, width in (("", 0.0), ("_low", -0.0625), ("_high", 0.0625))
        },
        "own_effect": (alone, effects[2]),
        "own_code": (alone, np.arange(effect.size).reshape(effect.shape) == 0),
        "accuracy": (alone, np.full(effect.shape, 0.6)),
        "difference": (alone, 1.5 - effects[2]),
        "log_probability_change": (alone, np.full(effect.shape, -0.3)),
        "clean_accuracy": (alone[:1], np.full(count, 0.9)),
        "clean_difference": (alone[:1], np.full(count, 1.5)),
        "spearman": (("estimator", "checkpoint"), spearman),
        "pearson": (("estimator", "checkpoint"), spearman.copy()),
        "share_spearman": (("measure", "checkpoint"), shares),
        "share_pearson": (("measure", "checkpoint"), shares.copy()),
        "top_set_effect": (sets, np.tile([0.5, 1.0, np.nan], (count, 1))),
        "top_set_estimate": (sets, np.tile([1.0, 1.25, np.nan], (count, 1))),
        "top_set_accuracy": (sets, np.tile([0.8, 0.6, np.nan], (count, 1))),
        "random_set_effect": (draws, np.tile([[0.0, 0.1], [0.1, 0.3], [np.nan, np.nan]], (count, 1, 1))),
        "random_set_accuracy": (draws, np.tile([[0.9, 0.9], [0.9, 0.8], [np.nan, np.nan]], (count, 1, 1))),
        "position_effect": (("checkpoint", "top_feature", "example", "position"), position),
        "position_activation": (("top_feature", "example", "position"), active),
        "role": (("feature",), strings(["top", "top", "top", "control"][: len(chosen)])),
        "token": (
            ("example", "position"),
            strings([["<|eos|>", " the", HOSTILE, ""], ["<|eos|>", "two", " ox", "en"]]),
        ),
        "right": (("example",), strings([" is", " are"])),
        "wrong": (("example",), strings([" are", " is"])),
        "example_condition": (("example",), strings(conditions[[0, -1]])),
    }
    if str(relie["metric"].sel(task=task).values) != "next_token":
        text, tokens = ("example", "member", "position"), values["token"][1]
        values["position_effect"] = (
            ("checkpoint", "top_feature", *text),
            np.stack([position, -0.5 * position], axis=3),
        )
        values["position_activation"] = (("top_feature", *text), np.stack([active, active], axis=2))
        values["token"] = (text, np.stack([tokens, tokens], axis=1))
    unit = str(relie["unit"].sel(task=task).values)
    return xr.Dataset(
        {name: labelled(dims, of, name, unit) for name, (dims, of) in values.items()},
        coords={
            "checkpoint": relie["checkpoint"],
            "feature": chosen,
            "top_feature": chosen[:3],
            "condition": conditions,
            "position_role": strings(["separator", "subject", "last token"]),
            "estimator": strings(["attribution_patching", "published", "exact"]),
            "measure": strings(["attribution_patching", "published", "relative_decoder_norm"]),
            "earlier": ("pair", relie["checkpoint"].values[earlier]),
            "later": ("pair", relie["checkpoint"].values[later]),
            "group": strings(["top", "control", *DRAWS]),
            "set_size": [1, 2, 5],
            "draw": [1, 2],
        },
    )


def seed_store(tasks: tuple[str, ...] = CONTRAST) -> xr.Dataset:
    dims = ("seed", "cosine_at_least", "task", "checkpoint")
    shape = (2, 2, len(tasks), 2)
    spearman = np.full(shape, 0.5)
    spearman[:, 1] = [[0.7, 0.9]] * 2
    return xr.Dataset(
        {
            "indirect_effect_spearman": labelled(dims, spearman, "spearman"),
            "relative_indirect_effect_difference": labelled(dims, np.full(shape, 0.125), "difference"),
            "class_agreement": labelled(dims[:3], np.full(shape[:3], 0.75), "agreement"),
            "class_kappa": labelled(dims[:3], np.full(shape[:3], np.nan), "kappa"),
            "classes_compared": labelled(dims[:3], np.full(shape[:3], 40), "compared"),
            "features_matched": labelled(dims[:2], np.full(shape[:2], 60), "matched"),
        },
        coords={"seed": [1, 2], "cosine_at_least": [0.0, 0.7], "task": strings(tasks)},
    )


def example_store(revisions: list[str] = REVISIONS[1:]) -> xr.Dataset:
    """Feature 0 alone, which promotes a hostile token most; it has two neighbours, and is active beside one latent."""
    tokens = [["<|eos|>", " the", " ch", "ild", "ren", HOSTILE], ["", "", "", " two", " ox", "en"]]
    token_id = [[0, 1, 2, 3, 4, 5], [-1, -1, -1, 6, 7, 8]]
    activation = [[0.0, 0.1, 0.5, 2.0, 0.0, 1.5], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    dims, ranked = ("feature", "example", "position"), ("feature", "checkpoint", "rank")
    near, together = ("feature", "checkpoint", "neighbour"), ("feature", "neighbour")
    count = len(revisions)
    return xr.Dataset(
        {
            "token_id": labelled(dims, np.array([token_id]), "token"),
            "token": labelled(dims, strings([tokens]), "text"),
            "activation": labelled(dims, np.array([activation], dtype=np.float32), "activation"),
            "activation_frequency": labelled(("feature",), np.array([0.1]), "frequency"),
            "example_language": labelled(dims[:2], strings([["english", "french"]]), "language"),
            "example_source": labelled(dims[:2], strings([["", "web"]]), "source"),
            "language_share": labelled(("feature", "language"), np.array([[0.75, 0.25]]), "share"),
            "promoted_token": labelled(ranked, strings([[[HOSTILE, " are", " were"]] * count]), "promoted"),
            "promoted_logit": labelled(ranked, np.tile([0.75, 0.5, 0.25], (1, count, 1)), "its logit", "logit"),
            "suppressed_token": labelled(ranked, strings([[[" is", " was", " has"]] * count]), "suppressed"),
            "suppressed_logit": labelled(ranked, np.tile([-0.5, -0.375, -0.125], (1, count, 1)), "its logit", "logit"),
            "activation_count": labelled(("feature", "bin"), np.array([[40, 50, 0, 10]]), "tokens", "token"),
            "nearest_feature": labelled(near, np.tile([2, 1], (1, count, 1)), "nearest"),
            "nearest_cosine": labelled(near, np.tile([0.875, 0.25], (1, count, 1)), "cosine"),
            "nearest_random_cosine": labelled(("direction", "checkpoint"), np.full((8, count), 0.375), "by chance"),
            "coactive_feature": labelled(together, np.array([[1, -1]]), "co-active"),
            "coactive_jaccard": labelled(together, np.array([[0.5, np.nan]]), "Jaccard index"),
            "coactive_jaccard_expected": labelled(together, np.array([[0.0625, np.nan]]), "its level by chance"),
            "coactive_lift": labelled(together, np.array([[6.0, np.nan]]), "lift"),
        },
        coords={
            "language": strings(["english", "french"]),
            "feature": [0],
            "example": [0, 1],
            "position": np.arange(6) - 3,
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", TOKENS_SEEN[-count:]),
            "rank": [0, 1, 2],
            "neighbour": [0, 1],
            "bin_low": ("bin", [0.25, 0.5, 1.0, 2.0]),
            "bin_high": ("bin", [0.5, 1.0, 2.0, 4.0]),
        },
        attrs={"validation_tokens": 1000},
    )


def training_store(revisions: list[str]) -> xr.Dataset:
    steps, falling = [0, 10, 20], np.array([3.0, 2.0, 1.0])
    return xr.Dataset(
        {
            "explained_variance": labelled(("step", "checkpoint"), np.ones((3, len(revisions))), "explained"),
            **{name: labelled(("step",), falling, name) for name in ("l0", "dead_fraction", "loss")},
        },
        coords={"step": steps, "checkpoint": strings(revisions)},
    )


def evaluation_store(revisions: list[str], features: int = FEATURES, recovered: float = 0.95) -> xr.Dataset:
    """The code of feature 0 is not supported by the first checkpoint."""
    shape = (len(revisions), features)
    supported = np.ones(shape, dtype=bool)
    supported[0, 0] = False
    of_checkpoints = {
        "explained_variance": 0.9,
        "explained_variance_own": 0.8,
        "cross_entropy_recovered": recovered,
        "cross_entropy_recovered_own": 0.85,
        "cross_entropy_recovered_from_mean": 0.75,
        "splice_change": 1 - recovered,
        "splice_change_error": 0.0025,
    }
    return xr.Dataset(
        {
            **{
                name: labelled(("checkpoint",), np.full(shape[:1], value), name)
                for name, value in of_checkpoints.items()
            },
            "recovered_above_one": labelled(("checkpoint",), np.full(shape[:1], recovered > 1), "above one"),
            "l0": labelled((), 12.0, "l0"),
            "dead_fraction": labelled((), 0.25, "dead"),
            "code_supported": labelled(("checkpoint", "feature"), supported, "supported"),
            "own_code_r2": labelled(("checkpoint", "feature"), np.where(supported, 0.9, 0.125), "R2"),
            "preactivation_share": labelled(("checkpoint", "feature"), np.full(shape, 0.25), "share"),
            "refitted_decoder_norm": labelled(("checkpoint", "feature"), np.full(shape, 1.5), "refitted norm"),
            "present": labelled(("checkpoint", "feature"), supported.copy(), "present"),
            "latent_scaling_error": labelled(("checkpoint", "feature"), np.full(shape, 0.75), "error"),
            "latent_scaling_reconstruction": labelled(("checkpoint", "feature"), np.full(shape, 0.125), "supplied"),
            "activation_frequency": labelled(("feature",), np.full(features, 0.0625), "frequency"),
        },
        coords={"checkpoint": strings(revisions), "feature": np.arange(features)},
    )


def similarity_store() -> xr.Dataset:
    values = np.eye(len(REVISIONS))[None]
    dims = ("site", "checkpoint", "other_checkpoint")
    return xr.Dataset(
        {name: labelled(dims, values, name) for name in ("cosine", "pearson", "linear_cka")},
        coords={
            "site": strings(["residual.2"]),
            "checkpoint": strings(REVISIONS),
            "other_checkpoint": strings(REVISIONS),
            "tokens_seen": ("checkpoint", TOKENS_SEEN),
        },
    )


def choice_store() -> xr.Dataset:
    """Two changes of the near task, of which the second is not borne out by the half that had no part in the choice."""
    words = {
        "change_task": ["near", "near"],
        "last_before": ["step0", "step10"],
        "first_after": ["step10", "step20"],
        "first_after_low": ["step10", "step20"],
        "first_after_high": ["step20", "step20"],
    }
    sizes = {
        "choosing": [0.31, 0.11],
        "confirming": [0.25, 0.05],
        "confirming_low": [0.1, -0.05],
        "confirming_high": [0.4, 0.15],
        "by_chance": [0.12, 0.12],
    }
    curves = {
        "accuracy_choosing": [[0.5, 0.8, 0.9], [0.5, 0.45, 0.5]],
        "accuracy_confirming": [[0.5, 0.75, 0.8], [0.5, 0.5, 0.45]],
        "fitted_accuracy": [[0.5, 0.8, 0.9], [0.48, 0.48, 0.48]],
    }
    return xr.Dataset(
        {
            **{name: labelled(("change",), strings(texts), name) for name, texts in words.items()},
            **{f"change_{name}": labelled(("change",), np.array(values), name) for name, values in sizes.items()},
            **{name: labelled(("task", "checkpoint"), np.array(values), name) for name, values in curves.items()},
            "q_value": labelled(("task",), np.array([0.004, 0.9]), "q-value"),
            "changes": labelled(("task",), np.array([True, False]), "whether it changes"),
        },
        coords={
            "task": strings(CONTRAST),
            "checkpoint": strings(REVISIONS),
            "tokens_seen": ("checkpoint", TOKENS_SEEN),
        },
        attrs={**provenance(AttributionSettings(), suite="toy"), "summary": "1 of 2 tasks changes."},
    )


def with_facts(dataset: xr.Dataset, **facts: str | int | list[int]) -> xr.Dataset:
    return dataset.assign_attrs(provenance(AttributionSettings(), suite="toy", **facts))


def make_run(relie: xr.Dataset, comparison: str = "pair") -> Run:
    revisions = [str(name) for name in relie["checkpoint"].values]
    evaluation = evaluation_store(revisions, relie.sizes["feature"])
    stores = (training_store(revisions), evaluation, relie, example_store(revisions))
    facts = {"comparison": comparison, "variant": "l1", "seed": 0, "site": "residual.2"}
    ablations = {task: with_facts(ablation_store(relie, task), task=task, **facts) for task in CONTRAST}
    return Run(RunKey(comparison, "l1", 0), *(with_facts(store, **facts) for store in stores), ablations)


def toy_inputs(relie: xr.Dataset) -> ReportInputs:
    return ReportInputs(
        suite="toy",
        behaviour=with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9])),
        similarity=with_facts(similarity_store()),
        comparisons={"pair": REVISIONS[1:]},
        runs=[make_run(relie)],
        contrasts=[CONTRAST],
        seed_matches=[with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2])],
        example_path="results/toy/pair/l1/seed0/relie.zarr",
    )


def with_control(inputs: ReportInputs, control: str = "identity") -> ReportInputs:
    """The same inputs beside the crosscoder of a control comparison, and a baseline."""
    facts = {"comparison": "same", "variant": "l1", "seed": 0, "control": control}
    run = inputs.runs[0]
    return replace(
        inputs,
        controls=[with_facts(run.relie.drop_attrs(deep=False), **facts)],
        control_evaluations=[with_facts(run.evaluation.drop_attrs(deep=False), **facts)],
        baselines=[with_facts(baseline_store(), comparison="pair", variant="l1", seed=0)],
    )


def baseline_store() -> xr.Dataset:
    """Joint shares predict the exact ones best; classes of decoder norms agree in none."""
    dims = ("measure", "cosine_at_least", "task", "checkpoint")
    measures = ["baseline_relative_indirect_effect", "joint_relative_indirect_effect", "joint_relative_decoder_norm"]
    by_measure = np.array([0.5, 0.9, 0.1])
    full = np.broadcast_to(by_measure[:, None, None, None], (3, 2, 2, 2)).copy()
    agreement = np.broadcast_to(np.array([0.6, 0.8, 0.0])[:, None, None], (3, 2, 2)).copy()
    return xr.Dataset(
        {
            "features_matched": labelled(dims[1:2], np.array([6, 4]), "matched"),
            "features_compared": labelled(dims[1:3], np.array([[3, 2], [2, 1]]), "compared"),
            "spearman": labelled(dims, full, "spearman"),
            "mean_absolute_difference": labelled(dims, full / 10, "difference"),
            "class_agreement": labelled(dims[:3], agreement, "agreement"),
            "class_kappa": labelled(dims[:3], np.full(agreement.shape, np.nan), "kappa"),
        },
        coords={"measure": strings(measures), "cosine_at_least": [0.0, 0.7], "task": strings(CONTRAST)},
    )


def consolidation_store(shared: dict[str, list[bool]], revisions: list[str] = REVISIONS[1:]) -> xr.Dataset:
    """Overlap between English and French by family: what `shared` says is so by each measure; levels are constant.

    A family that is named "silent" has no measurable effect at the first checkpoint.
    """
    dims = ("measure", "sign", "family", "checkpoint", "language_pair")
    shape = (2, 2, len(shared), len(revisions), 1)
    levels = {"ceiling": 0.9, "permuted": 0.1, "random": 0.2, "other_families": 0.7, "corrected_overlap": 0.5}
    levels |= {"permuted_low": 0.05, "permuted_high": 0.15, "random_low": 0.1, "random_high": 0.3, "q_value": 0.01}
    holds = np.broadcast_to(np.array([*shared.values()])[..., None], shape)
    overlap = np.where(holds, 0.5, 0.125)
    values = {name: np.full(shape, level) for name, level in levels.items()}
    values |= {"overlap": overlap, "overlap_low": overlap - 0.1, "overlap_high": overlap + 0.1}
    for of in values.values():
        of[:, :, [name == "silent" for name in shared], 0] = np.nan
    by_number = np.tile([0.75, 0.25], (len(shared), len(revisions), 1))
    holding, of_families = np.array([*shared.values()]), ("family", "checkpoint")
    serving = {"by_chance": 2.0, "by_chance_low": 1.0, "by_chance_high": 4.0}
    return xr.Dataset(
        {
            **{name: labelled(dims, of, name) for name, of in values.items()},
            "shared": labelled(dims, holds.copy(), "shared"),
            "effect_by_languages_served": labelled(("family", "checkpoint", "served"), by_number, "fraction"),
            "features_serving": labelled(
                (*of_families, "served"), np.stack([np.full(holding.shape, 9), np.where(holding, 5, 1)], -1), "features"
            ),
            **{
                f"several_{name}": labelled(of_families, np.full(holding.shape, value), name)
                for name, value in serving.items()
            },
            "several_beyond": labelled(of_families, holding.copy(), "beyond"),
        },
        coords={
            "tokens_seen": ("checkpoint", TOKENS_SEEN[-len(revisions) :]),
            "language_pair": strings(["english, french"]),
            "family": strings([*shared]),
            "checkpoint": strings(revisions),
            "measure": strings(["top", "weighted"]),
            "sign": strings(["either", "helping"]),
            "served": [1, 2],
            "first_language": ("language_pair", strings(["english"])),
            "second_language": ("language_pair", strings(["french"])),
        },
    )


def with_languages(inputs: ReportInputs, shared: dict[str, list[bool]]) -> ReportInputs:
    """The same inputs with a comparison of languages."""
    facts = {"comparison": "pair", "variant": "l1", "seed": 0}
    return replace(inputs, consolidations=[with_facts(consolidation_store(shared), **facts)])
