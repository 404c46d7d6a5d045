"""Synthetic stores of task spaces, as the steps before the report write them: random but plausible, and seeded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from chronocoder.config import TaskSpaceSettings
from chronocoder.report.inputs import ReportInputs
from chronocoder.stores import labelled, provenance, strings

GROUPS = {
    "agreement": ["near", "far", "across_clause"],
    "binding": ["reflexive", "pronoun"],
    "islands": ["wh", "adjunct"],
}
METHODS = {"ftgd": ("differential", 0.01), "plain": ("right", 1.0), "swapped": ("swapped", 0.01)}
GAIN = {"ftgd": 1.0, "plain": 0.6, "swapped": 0.0}
DAMAGE = {"ftgd": 0.02, "plain": 0.25, "swapped": 0.01}
PARAMETERS = 100_000
AXES = 2


@dataclass(frozen=True)
class Known:
    """What is put into the stores.

    Attributes:
        groups: tasks by hypothesised group.
        checkpoints: tokens seen by revision.
        seeds: of tuning.
        methods: objective and fraction by name; those of another name than here gain and damage as the first does.
        noise: standard deviation of a seed's transfer around the truth, in logits.
        seed: of the random numbers.
    """

    groups: Mapping[str, Sequence[str]] = field(default_factory=lambda: GROUPS)
    checkpoints: Mapping[str, int] = field(default_factory=lambda: {"step0": 0, "step10": 1_000, "step20": 50_000})
    seeds: Sequence[int] = (0, 1)
    methods: Mapping[str, tuple[str, float]] = field(default_factory=lambda: METHODS)
    noise: float = 0.04
    seed: int = 0

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks; those of a group are not next to each other."""
        longest = max(map(len, self.groups.values()))
        return [of[place] for place in range(longest) for of in self.groups.values() if place < len(of)]

    @property
    def group_of_tasks(self) -> list[str]:
        """The group of each task."""
        return [next(name for name, of in self.groups.items() if task in of) for task in self.tasks]

    @property
    def same_group(self) -> np.ndarray:
        """Whether two tasks are of one group, shape (task, task)."""
        of_tasks = np.array(self.group_of_tasks)
        return of_tasks[:, None] == of_tasks

    @property
    def growth(self) -> np.ndarray:
        """How much there is to transfer at each checkpoint: nothing at the first of several."""
        return np.linspace(0, 1, len(self.checkpoints)) if len(self.checkpoints) > 1 else np.ones(1)

    def generator(self, part: int) -> np.random.Generator:
        """Return the random numbers of one store."""
        return np.random.default_rng([self.seed, part])

    def along_checkpoints(self) -> dict[str, object]:
        """Return the coordinates of checkpoints."""
        return {
            "checkpoint": strings(list(self.checkpoints)),
            "tokens_seen": ("checkpoint", list(self.checkpoints.values())),
        }


KNOWN = Known()


def pairs_of(same: bool, known: Known = KNOWN) -> list[tuple[str, str]]:
    """Ordered pairs of different tasks that are of one group, or of different ones."""
    groups = dict(zip(known.tasks, known.group_of_tasks, strict=True))
    return [
        (one, other) for one in groups for other in groups if one != other and (groups[one] == groups[other]) == same
    ]


def relation(known: Known) -> np.ndarray:
    """How much of what one task teaches holds for another, shape (checkpoint, task, task): more within a group."""
    generator = known.generator(0)
    base = np.where(known.same_group, 0.6, 0.1) + generator.normal(0, 0.06, known.same_group.shape)
    base = (base + base.T) / 2
    np.fill_diagonal(base, 1.0)
    return known.growth[:, None, None] * base


def transfer_store(known: Known = KNOWN) -> xr.Dataset:
    """Transfer by every method: a method's gain times the relation of the tasks, more of it later in training."""
    generator = known.generator(1)
    tasks, methods, count = known.tasks, list(known.methods), len(known.tasks)
    gain = np.array([GAIN.get(name, 1.0) for name in methods])
    damage = np.array([DAMAGE.get(name, 0.02) for name in methods])
    truth = gain[:, None, None, None, None] * relation(known)[None, None]
    shape = (len(methods), len(known.seeds), len(known.checkpoints), count, count)
    transfer = truth + generator.normal(0, known.noise, shape)
    mean, width = transfer.mean(axis=1), 2 * known.noise
    swapped = [place for place, (objective, _) in enumerate(known.methods.values()) if objective == "swapped"]
    if swapped:
        level = np.quantile(abs(transfer[swapped]), 0.95, axis=(0, 1, 3))[:, None]
    else:
        level = np.full((len(known.checkpoints), 1, count), np.nan)
    by_chance = np.repeat(level, count, axis=1)
    own = np.diagonal(mean, axis1=2, axis2=3)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where((own > width)[:, :, None, :], mean / own[:, :, None, :], np.nan)
    loss = damage[:, None, None, None] * generator.uniform(0.5, 1.5, (*shape[:3], count)) + generator.normal(
        0, 0.002, (*shape[:3], count)
    )
    mean_loss = loss.mean(axis=1)
    beyond = (abs(mean) > by_chance) & (abs(mean) > width)
    cell, own_cell = ("tuning", "checkpoint", "source", "target"), ("tuning", "checkpoint", "source")
    of_target = ("checkpoint", "target")
    accuracy = np.clip(0.25 * mean, -0.5, 0.5)
    before = np.broadcast_to(0.5 + 0.4 * known.growth[:, None], (len(known.checkpoints), count)).copy()
    unit = "unit of the target"
    return with_facts(
        xr.Dataset(
            {
                "transfer": labelled(("tuning", "seed", "checkpoint", "source", "target"), transfer, "transfer", unit),
                **with_ends(cell, "mean_transfer", mean, width, unit),
                **with_ends(cell, "accuracy_change", accuracy, 0.03, "1"),
                "accuracy_before": labelled(of_target, before, "accuracy before tuning"),
                "difference_before": labelled(of_target, 4 * before - 2, "right minus wrong before tuning", unit),
                "relative_transfer": labelled(cell, relative, "transfer over own gain of the target"),
                "chance_level": labelled(cell[1:], by_chance, "transfer that swapped pairs stay within", unit),
                "beyond_chance": labelled(cell, beyond & np.isfinite(by_chance), "beyond chance"),
                "loss_change": labelled(
                    ("tuning", "seed", "checkpoint", "source"), loss, "change of the loss", "nat per token"
                ),
                **with_ends(own_cell, "mean_loss_change", mean_loss, 0.01, "nat per token"),
                "loss_before": labelled(("checkpoint",), 6 - 3 * known.growth, "loss before tuning", "nat per token"),
                "updated_fraction": labelled(
                    own_cell,
                    np.broadcast_to(
                        np.array([of for _, of in known.methods.values()])[:, None, None], mean_loss.shape
                    ).copy(),
                    "fraction of the parameters updated",
                ),
                "pairs_tuned": labelled(("seed", "source"), np.full((len(known.seeds), count), 90), "pairs tuned on"),
                "pairs_held_out": labelled(
                    ("seed", "target"), np.full((len(known.seeds), count), 95), "pairs held out"
                ),
            },
            coords={
                **known.along_checkpoints(),
                "tuning": strings(methods),
                "objective": ("tuning", strings([objective for objective, _ in known.methods.values()])),
                "fraction": ("tuning", [of for _, of in known.methods.values()]),
                "seed": list(known.seeds),
                "source": strings(tasks),
                "target": strings(tasks),
                "unit": ("target", strings(["logit"] * count)),
                "group": ("target", strings(known.group_of_tasks)),
                "source_group": ("source", strings(known.group_of_tasks)),
            },
        ),
        parameters=PARAMETERS,
    )


def gradients_store(known: Known = KNOWN) -> xr.Dataset:
    """Similarity of gradient differentials, more of it within groups and later in training."""
    generator = known.generator(2)
    count, dims = len(known.tasks), ("checkpoint", "task", "other_task")
    truth = relation(known)
    cosine = np.clip(0.8 * truth + symmetric(generator, truth.shape, 0.02), -1, 1)
    np.einsum("ctt->ct", cosine)[:] = 0.2 + 0.7 * known.growth[:, None]
    overlap = np.clip(0.05 + 0.5 * truth + symmetric(generator, truth.shape, 0.01), 0, 1)
    chance = np.clip(0.05 + symmetric(generator, truth.shape, 0.005), 0, 1)
    shared = np.clip(chance + 0.4 * truth, 0, 1)
    np.einsum("ctt->ct", shared)[:] = 0.6
    norm = generator.uniform(0.5, 2, (len(known.checkpoints), count))
    return with_facts(
        xr.Dataset(
            {
                **with_ends(dims, "cosine", cosine, 0.05, "1"),
                **with_ends(dims, "corrected_cosine", np.clip(cosine / 0.9, -1, 1), 0.06, "1"),
                "subspace_overlap": labelled(dims, overlap, "overlap of subspaces"),
                "subspace_chance": labelled(
                    ("checkpoint",), np.full(len(known.checkpoints), 0.03), "overlap of random subspaces"
                ),
                "subspace_swapped": labelled(dims, np.full(overlap.shape, 0.04), "overlap with swapped labels"),
                "shared_swapped": labelled(dims, chance + 0.02, "the same with swapped labels"),
                "shared_parameters": labelled(dims, shared, "fraction of the parameters that both select"),
                "shared_chance": labelled(dims, chance, "the same of parameters chosen at random"),
                "norm": labelled(("checkpoint", "task"), norm, "norm of the gradient differential"),
            },
            coords={**known.along_checkpoints(), **of_two_tasks(known)},
        ),
        parameters=PARAMETERS,
        sketch=0,
    )


def space_store(known: Known = KNOWN, p_value: float = 0.002) -> xr.Dataset:
    """Spaces of both bases; nothing is learnt from transfer at the first of several checkpoints."""
    generator = known.generator(3)
    bases, count, checkpoints = ["transfer", "gradients"], len(known.tasks), len(known.checkpoints)
    similarity = np.stack([relation(known), gradients_store(known)["cosine"].values])
    angles = np.array(
        [2 * np.pi * list(known.groups).index(group) / len(known.groups) for group in known.group_of_tasks]
    )
    centres = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    position = known.growth[None, :, None, None] * centres + generator.normal(0, 0.2, (2, checkpoints, count, AXES))
    other = ~np.eye(count, dtype=bool)
    within, between = (similarity[..., other & of].mean(axis=-1) for of in (known.same_group, ~known.same_group))
    contrast = within - between
    p_values = np.where(contrast > 0.1, p_value, 0.5)
    stability = np.full((2, checkpoints), 0.8)
    stability[:, 0] = np.nan
    seeds, agreement = np.full(checkpoints, 0.9), 0.7 * known.growth
    if checkpoints > 1:
        for values in (similarity, position, within, between, contrast, p_values):
            values[0, 0] = np.nan
        seeds[0] = agreement[0] = stability[0, 1] = np.nan
    dims, at = ("basis", "checkpoint", "task"), ("basis", "checkpoint")
    return with_facts(
        xr.Dataset(
            {
                "similarity": labelled((*dims, "other_task"), similarity, "similarity"),
                "position": labelled((*dims, "axis"), position, "position"),
                "explained": labelled((*at, "axis"), np.tile([0.6, 0.2], (2, checkpoints, 1)), "explained"),
                "within": labelled(at, within, "mean similarity within groups"),
                "between": labelled(at, between, "mean similarity between groups"),
                **with_ends(at, "contrast", contrast, 0.08, "1"),
                "contrast_p": labelled(at, p_values, "p-value of the contrast"),
                "contrast_smallest_p": labelled(at, np.full((2, checkpoints), 0.0001), "least p-value there can be"),
                "stability": labelled(at, stability, "Procrustes similarity with the checkpoint before"),
                "stability_p": labelled(at, np.where(np.isnan(stability), np.nan, 0.001), "its p-value"),
                "stability_chance": labelled(
                    at, np.where(np.isnan(stability), np.nan, 0.3), "the same of relabelled tasks"
                ),
                "seed_stability_before": labelled(
                    ("checkpoint",), np.where(np.isnan(stability[0]), np.nan, 0.75), "the same, checkpoint before"
                ),
                "seed_stability": labelled(("checkpoint",), seeds, "the same between seeds"),
                "agreement": labelled(("checkpoint",), agreement, "Mantel correlation of both bases"),
                "agreement_p": labelled(("checkpoint",), np.where(np.isnan(agreement), np.nan, 0.01), "its p-value"),
            },
            coords={**known.along_checkpoints(), **of_two_tasks(known), "basis": strings(bases)},
        )
    )


def bridge_store(known: Known = KNOWN, left_without_shared: float = 0.4, p_value: float = 0.004) -> xr.Dataset:
    """Transfer goes with the overlap of features; without shared features so much of it is left."""
    generator = known.generator(4)
    truth, count, dims = relation(known), len(known.tasks), ("checkpoint", "source", "target")
    overlap = np.clip(0.05 + 0.6 * truth + symmetric(generator, truth.shape, 0.05), 0, 1)
    transfer = truth + generator.normal(0, known.noise, truth.shape)
    width, shared = 0.05, np.round(20 * overlap).astype(int)
    correlation = known.growth[:, None] * np.array([0.6, 0.5])
    measured, relations = ("checkpoint", "measure"), ("own", "within", "between")
    apart = ~np.eye(count, dtype=bool)
    pairs = np.array([count, (known.same_group & apart).sum(), (~known.same_group).sum()])
    carried = np.broadcast_to(np.where(pairs > 0, 1 - left_without_shared, np.nan), (len(known.checkpoints), 3)).copy()
    by_others = np.where(pairs > 0, 0.1, np.nan) * np.ones_like(carried)
    with_own = {"source": strings(known.tasks), "target": strings(known.tasks)}
    return with_facts(
        xr.Dataset(
            {
                "feature_overlap": labelled(dims, overlap, "overlap of top features"),
                "feature_cosine": labelled(dims, np.clip(1.2 * overlap - 0.1, -1, 1), "cosine of IE"),
                "overlap_chance": labelled(dims, np.full(truth.shape, 0.08), "overlap of random active features"),
                "transfer": labelled(dims, transfer, "transfer", "unit of the target"),
                "correlation": labelled(measured, correlation, "Spearman correlation with transfer"),
                "correlation_p": labelled(measured, np.where(correlation > 0.1, p_value, 0.5), "its p-value"),
                "shared_features": labelled(dims, shared, "shared features"),
                **with_ends(dims, "transfer_intact", transfer, width, "unit of the target"),
                **with_ends(
                    dims, "transfer_without_shared", left_without_shared * transfer, width, "unit of the target"
                ),
                **with_ends(dims, "transfer_without_others", 0.9 * transfer, width, "unit of the target"),
                **with_ends(("checkpoint", "relation"), "removed_by_shared", carried, 0.07, "1"),
                **with_ends(("checkpoint", "relation"), "removed_by_others", by_others, 0.03, "1"),
                **with_ends(("checkpoint", "relation"), "removed_beyond_others", carried - by_others, 0.08, "1"),
                "pairs_compared": labelled(
                    ("checkpoint", "relation"), np.tile(pairs.astype(int), (len(known.checkpoints), 1)), "ordered pairs"
                ),
            },
            coords={
                **known.along_checkpoints(),
                **with_own,
                "measure": strings(["overlap", "cosine"]),
                "relation": strings(relations),
                "unit": ("target", strings(["logit"] * count)),
                "group": ("target", strings(known.group_of_tasks)),
                "source_group": ("source", strings(known.group_of_tasks)),
            },
        )
    )


def tuning_store(source: str, known: Known = KNOWN, seed: int = 0, checkpoint: int = -1, pairs: int = 20) -> xr.Dataset:
    """One tuning on a source task at one checkpoint, by every method, with so many held-out pairs of each task."""
    generator = known.generator(5 + seed)
    tasks, methods = known.tasks, list(known.methods)
    place, revision = tasks.index(source), list(known.checkpoints)[checkpoint]
    target = np.repeat(np.arange(len(tasks)), pairs)
    before = generator.normal(1, 1, len(target))
    gain = np.array([GAIN.get(name, 1.0) for name in methods])
    truth = gain[:, None] * relation(known)[checkpoint, place, target]
    loss_before = generator.normal(4, 0.3, 8)
    damage = np.array([DAMAGE.get(name, 0.02) for name in methods])
    updated = np.array([round(of * PARAMETERS) for _, of in known.methods.values()])
    store = xr.Dataset(
        {
            "difference": labelled(
                ("tuning", "entry"),
                before + truth + generator.normal(0, known.noise, truth.shape),
                "difference",
                "logit",
            ),
            "difference_before": labelled(("entry",), before, "difference before tuning", "logit"),
            "loss": labelled(
                ("tuning", "sequence"), loss_before + damage[:, None], "loss after tuning", "nat per token"
            ),
            "loss_before": labelled(("sequence",), loss_before, "loss before tuning", "nat per token"),
            "training_loss": labelled(
                ("tuning", "step"), generator.normal(0, 0.1, (len(methods), 5)) - np.arange(5), "training loss", "nat"
            ),
            "updated_parameters": labelled(("tuning",), updated, "entries that were updated"),
            "update_norm": labelled(("tuning",), np.full(len(methods), 0.5), "norm of the update"),
        },
        coords={
            "tuning": strings(methods),
            "objective": ("tuning", strings([objective for objective, _ in known.methods.values()])),
            "fraction": ("tuning", [of for _, of in known.methods.values()]),
            "target": ("entry", strings([tasks[at] for at in target])),
            "example": ("entry", np.tile(np.arange(pairs), len(tasks))),
        },
    )
    facts = {"task": source, "revision": revision, "seed": seed, "parameters": PARAMETERS, "unit": "logit"}
    return with_facts(store, **facts, pairs_tuned=pairs, pairs_held_out=pairs)


def with_task_space(inputs: ReportInputs, known: Known = KNOWN, bridged: bool = True) -> ReportInputs:
    """The same inputs with a task space, and with a bridge of every run."""
    bridges = [bridge_store(known).assign_attrs(run.key._asdict()) for run in inputs.runs] if bridged else []
    return replace(
        inputs,
        transfer=transfer_store(known),
        gradients=gradients_store(known),
        space=space_store(known),
        bridges=bridges,
    )


def with_ends(dims: tuple[str, ...], name: str, values: np.ndarray, width: float, units: str) -> dict[str, xr.Variable]:
    """Return a variable with both ends of its interval."""
    ends = (("", 0.0), ("_low", -width), ("_high", width))
    return {f"{name}{end}": labelled(dims, values + by, f"{name}{end}", units) for end, by in ends}


def of_two_tasks(known: Known) -> dict[str, object]:
    """Return the coordinates of pairs of tasks."""
    tasks = strings(known.tasks)
    return {"task": tasks, "other_task": tasks, "group": ("task", strings(known.group_of_tasks))}


def symmetric(generator: np.random.Generator, shape: tuple[int, ...], size: float) -> np.ndarray:
    """Return noise that is the same for both orders of two tasks."""
    noise = generator.normal(0, size, shape)
    return (noise + noise.swapaxes(-1, -2)) / 2


def with_facts(store: xr.Dataset, suite: str = "toy", **facts: str | int) -> xr.Dataset:
    """Return a store with the provenance of the step that writes it."""
    return store.assign_attrs(provenance(TaskSpaceSettings(), suite=suite, **facts))
