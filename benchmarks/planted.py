"""Train every variant on activations made from a known dictionary, and report how much of it is found again.

The dictionary has more features than the activations have dimensions. Its features fire in groups, and at each of
several checkpoints they are there or not: shared by all checkpoints, emerging, vanishing, rotated from checkpoint to
checkpoint, or of different strength. The trainer, its loader and the measures are those of the project.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import pi, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from chronocoder.activations.formats import Stored, StoredFormat
from chronocoder.activations.sources import ActivationSource
from chronocoder.attribution.measures import PRESENT_SHARE
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.statistics import PRESENT_RATIO, Statistics, latent_scaling, refitted_rows
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import CrosscoderSettings

KINDS = {"shared": 0.4, "emerging": 0.15, "vanishing": 0.15, "rotated": 0.15, "strength": 0.15}
"""Kinds of features and their part of all."""

MEASURES = ("share", "ratio", "scaling", "refitted")
"""Ways to tell from a latent at which checkpoints its feature is present: see `presence`."""

DIFFICULTY_OPTIONS = (
    "checkpoints",
    "width",
    "features",
    "group_size",
    "correlation",
    "spread",
    "noise",
    "offset",
    "weakest",
)
PIECE_ROWS = 4096
EVALUATION_ROWS = 65_536
RECOVERED_COSINE = 0.9
DICTIONARY_RATIO = 1.5

COMMON: dict[str, Any] = {
    "steps": 1500,
    "batch_tokens": 1024,
    "learning_rate": 3e-3,
    "dead_after_tokens": 20_000,
    "normalisation_tokens": 32_768,
    "shuffle_tokens": 16_384,
}
OWN: dict[str, dict[str, Any]] = {
    "l1": {"l1_coefficient": 0.6},
    "topk": {},
    "batchtopk": {},
    "jumprelu": {"l0_coefficient": 3.0},
}
"""Settings of the variants; where one has a k, it is the planted number of active features a token."""


@dataclass(frozen=True)
class Difficulty:
    """What the planted activations are like. Lengths are in units of a feature's median contribution.

    Attributes:
        checkpoints: how many, M.
        width: width of an activation, d_model.
        features: planted features; more than `width` is superposition.
        frequency: least and largest part of the tokens a feature is active on; log-uniform between.
        group_size: features that fire together.
        correlation: of the Gaussian variables whose excess over a threshold makes the features of a group active.
        spread: standard deviation of the logarithm of the magnitudes.
        noise: length of the Gaussian noise at each checkpoint, sqrt(d_model) times its standard deviation.
        offset: length of the mean at each checkpoint.
        angle: least and largest angle in degrees by which a rotated feature turns from one checkpoint to the next.
        weakest: least strength of a feature of different strength; the largest is one.
        scales: factors of the checkpoints' activations, repeated as needed.
    """

    checkpoints: int = 3
    width: int = 64
    features: int = 256
    frequency: tuple[float, float] = (0.005, 0.05)
    group_size: int = 4
    correlation: float = 0.5
    spread: float = 0.4
    noise: float = 0.8
    offset: float = 1.5
    angle: tuple[float, float] = (30.0, 90.0)
    weakest: float = 0.3
    scales: tuple[float, ...] = (1.0, 3.0, 0.5)


class Planted(NamedTuple):
    """A known dictionary.

    Attributes:
        difficulty: what it was made by.
        kinds: index into `KINDS`, shape (feature,).
        directions: unit vectors, whether present or not.
        strength: length of the contribution of a magnitude of one; zero where the feature is absent.
        frequency: part of the tokens each feature is active on.
        groups: the group of each feature.
        offset: mean of the activations but for the features' part.
        scale: factor of each checkpoint's activations.
    """

    difficulty: Difficulty
    kinds: Int[Tensor, " feature"]
    directions: Float[Tensor, "feature checkpoint d_model"]
    strength: Float[Tensor, "feature checkpoint"]
    frequency: Float[Tensor, " feature"]
    groups: Int[Tensor, " feature"]
    offset: Float[Tensor, "checkpoint d_model"]
    scale: Float[Tensor, " checkpoint"]

    @property
    def rows(self) -> Float[Tensor, "feature checkpoint d_model"]:
        """The decoder rows of a perfect crosscoder of raw activations."""
        return self.directions * (self.strength * self.scale)[..., None]

    @property
    def present(self) -> Bool[Tensor, "feature checkpoint"]:
        """Which checkpoints have which feature."""
        return self.strength > 0

    @property
    def l0(self) -> float:
        """Mean number of active features a token."""
        return float(self.frequency.sum())


def plant(difficulty: Difficulty, generator: torch.Generator) -> Planted:
    """Draw a dictionary."""
    M, count = difficulty.checkpoints, difficulty.features
    kinds = _draw_kinds(count, generator)
    least, largest = (torch.tensor(value).log() for value in difficulty.frequency)
    frequency = (least + (largest - least) * torch.rand(count, generator=generator)).exp()
    offset = normalize(torch.randn(M, difficulty.width, generator=generator), dim=-1) * difficulty.offset
    scale = torch.tensor(difficulty.scales).repeat(-(-M // len(difficulty.scales)))[:M]
    return Planted(
        difficulty,
        kinds,
        _draw_directions(difficulty, kinds, generator),
        _draw_strength(difficulty, kinds, generator),
        frequency,
        torch.randperm(count, generator=generator) // difficulty.group_size,
        offset,
        scale,
    )


def draw_activities(planted: Planted, tokens: int, generator: torch.Generator) -> Float[Tensor, "token feature"]:
    """Draw the magnitudes of the features, zero where not active.

    A feature is active where a Gaussian variable exceeds the threshold that gives it its frequency; those of a group
    share a part of their variables. Magnitudes are log-normal with median one.
    """
    difficulty, groups = planted.difficulty, planted.groups
    shared = torch.randn(tokens, int(groups.max()) + 1, generator=generator)[:, groups]
    own = torch.randn(tokens, len(groups), generator=generator)
    drive = difficulty.correlation**0.5 * shared + (1 - difficulty.correlation) ** 0.5 * own
    active = drive > torch.special.ndtri(1 - planted.frequency)
    magnitudes = torch.zeros(tokens, len(groups))
    sizes = torch.randn(int(active.sum()), generator=generator) * difficulty.spread
    magnitudes[active] = sizes.exp()
    return magnitudes


def draw_activations(
    planted: Planted, tokens: int, generator: torch.Generator
) -> Float[Tensor, "token checkpoint d_model"]:
    """Draw raw activations of all checkpoints."""
    difficulty = planted.difficulty
    activities = draw_activities(planted, tokens, generator)
    noise = torch.randn(tokens, *planted.offset.shape, generator=generator) * difficulty.noise / sqrt(difficulty.width)
    clean = torch.einsum("tf,fmd->tmd", activities, planted.rows)
    return clean + (noise + planted.offset) * planted.scale[:, None]


class PlantedActivations(ActivationSource):
    """Activations of a planted dictionary, drawn when they are asked for.

    Attributes:
        name: what errors call it.
        rows: tokens.
        width: width of an activation, d_model.
        checkpoints: how many.
        piece_rows: rows of each piece but the last.
        stored_format: always `float32`.
    """

    name = "planted"
    piece_rows = PIECE_ROWS
    stored_format: StoredFormat = "float32"

    def __init__(self, planted: Planted, rows: int, seed: int) -> None:
        """Keep what a piece is drawn by: its number and the seed."""
        self._planted, self._seed = planted, seed
        self.rows, self.width = rows, planted.difficulty.width
        self.checkpoints = planted.difficulty.checkpoints

    def piece(self, number: int) -> Float[Tensor, "token checkpoint d_model"]:
        """Return a piece; it is the same every time."""
        seed = np.random.default_rng([self._seed, number]).integers(2**63)
        return draw_activations(self._planted, self.size(number), torch.Generator().manual_seed(int(seed)))

    def read_piece(self, number: int, into: Stored) -> None:
        """Draw a piece into memory of its size, shape (token, checkpoint, d_model)."""
        into.values.copy_(self.piece(number))

    def blocks(self) -> Iterator[Float[Tensor, "token checkpoint d_model"]]:
        """Yield all pieces in order."""
        for number in range(-(-self.rows // self.piece_rows)):
            yield self.piece(number)


@dataclass(frozen=True)
class Score:
    """How much of a planted dictionary a crosscoder has found.

    Attributes:
        kinds: index into `KINDS`, shape (feature,).
        recovered: whether the feature's latent has its direction at every checkpoint where it is present.
        classified: by measure, whether it says of the feature's latent at every checkpoint rightly if it is present.
        emerging: by measure, whether it says that the feature emerges.
        latents: by measure, latents said to emerge, and those of them nearest to a feature that does not.
        explained_variance: by checkpoint.
        explainable: by checkpoint, the part of the variance that is no noise.
        l0: mean number of active latents a token.
        dead: part of the latents that are never active.
    """

    kinds: Int[Tensor, " feature"]
    recovered: Bool[Tensor, " feature"]
    classified: dict[str, Bool[Tensor, " feature"]]
    emerging: dict[str, Bool[Tensor, " feature"]]
    latents: dict[str, tuple[int, int]]
    explained_variance: list[float]
    explainable: list[float]
    l0: float
    dead: float


class Run(NamedTuple):
    """A training and what it found.

    Attributes:
        score: against the planted dictionary.
        planted_l0: mean number of active features a token.
        seconds: time of the training.
    """

    score: Score
    planted_l0: float
    seconds: float


def train(planted: Planted, settings: CrosscoderSettings, seed: int) -> Crosscoder:
    """Train a crosscoder on fresh activations, each seen once."""
    M, width = planted.difficulty.checkpoints, planted.difficulty.width
    config = CrosscoderConfig(
        suite="planted",
        comparison="planted",
        variant=settings.sparsity,
        checkpoints=tuple(f"step{number}" for number in range(M)),
        site="residual.0",
        d_model=width,
        settings=settings,
        seed=seed,
        commits=("",) * M,
        folded=False,
    )
    source = PlantedActivations(planted, settings.steps * settings.batch_tokens, 2 * seed)
    with TemporaryDirectory() as directory:
        states = StateDirectory(Path(directory) / "state", {})
        return train_crosscoder(config, source, states, Path(directory) / "rescue", settings.steps).crosscoder


def score(planted: Planted, crosscoder: Crosscoder, statistics: Statistics, ratio: float = PRESENT_RATIO) -> Score:
    """Compare a folded crosscoder with the dictionary that its activations were made from."""
    cosines = cosine_similarity(planted.directions[:, None], crosscoder.decoder_rows, dim=-1)
    alive = statistics.active > 0
    latents = match_latents(cosines, planted.present, alive)
    own = cosines[torch.arange(len(latents)), latents]
    said = presence(crosscoder, statistics, ratio)
    found = alive[latents]
    nearest = _nearest_feature(crosscoder, cosines)
    return Score(
        kinds=planted.kinds,
        recovered=found & ((own > RECOVERED_COSINE) | ~planted.present).all(dim=1),
        classified={name: found & (value[latents] == planted.present).all(dim=1) for name, value in said.items()},
        emerging={name: found & emerges(value[latents]) for name, value in said.items()},
        latents={name: _false_latents(emerges(value) & alive, planted, nearest) for name, value in said.items()},
        explained_variance=statistics.explained_variance.tolist(),
        explainable=_explainable(planted, crosscoder, statistics),
        l0=float(statistics.l0),
        dead=1 - float(alive.float().mean()),
    )


def match_latents(
    cosines: Float[Tensor, "feature latent checkpoint"],
    present: Bool[Tensor, "feature checkpoint"],
    alive: Bool[Tensor, " latent"],
) -> Int[Tensor, " feature"]:
    """Return a latent for each feature: the pair of largest mean cosine first, each latent once.

    The mean is over the checkpoints that have the feature. To go by the largest first finds what the best assignment
    finds wherever no latent has a cosine above 0.9 with two features; those would have one above 0.6 with each other.
    """
    weights = present / present.sum(dim=1, keepdim=True)
    mean = torch.einsum("flm,fm->fl", cosines, weights).masked_fill(~alive, -2.0)
    latents = torch.zeros(len(mean), dtype=torch.int64)
    for _ in range(min(mean.shape)):
        feature, latent = divmod(int(mean.argmax()), mean.shape[1])
        latents[feature] = latent
        mean[feature], mean[:, latent] = -3.0, -3.0
    return latents


def presence(
    crosscoder: Crosscoder, statistics: Statistics, ratio: float = PRESENT_RATIO
) -> dict[str, Bool[Tensor, "latent checkpoint"]]:
    """Return at which checkpoints each latent's feature is said to be present, by measure.

    - share: RelDec exceeds 0.6 / M, which is what the project asks of RelIE;
    - ratio: the decoder norm, and so RelDec, exceeds a part of the latent's largest;
    - scaling: so does the latent scaling towards the error;
    - refitted: so does the norm of the refitted decoder row.
    """
    norms = crosscoder.decoder_norms.T
    return {
        "share": norms / norms.sum(dim=1, keepdim=True) > PRESENT_SHARE / norms.shape[1],
        "ratio": _relative(norms) > ratio,
        "scaling": _relative(latent_scaling(crosscoder, statistics).error.T) > ratio,
        "refitted": _relative(refitted_rows(crosscoder, statistics).norm(dim=-1)) > ratio,
    }


def emerges(present: Bool[Tensor, "feature checkpoint"]) -> Bool[Tensor, " feature"]:
    """Return which are absent at first, and present from some checkpoint to the end."""
    return ~present[:, 0] & present[:, -1] & (present.int().diff(dim=1) >= 0).all(dim=1)


def _relative(size: Float[Tensor, "latent checkpoint"]) -> Float[Tensor, "latent checkpoint"]:
    return size / size.amax(dim=1, keepdim=True)


def _nearest_feature(
    crosscoder: Crosscoder, cosines: Float[Tensor, "feature latent checkpoint"]
) -> Int[Tensor, " latent"]:
    longest = crosscoder.decoder_norms.argmax(dim=0)
    return cosines[:, torch.arange(len(longest)), longest].argmax(dim=0)


def _false_latents(
    emerging: Bool[Tensor, " latent"], planted: Planted, nearest: Int[Tensor, " latent"]
) -> tuple[int, int]:
    return int(emerging.sum()), int((emerging & ~emerges(planted.present)[nearest]).sum())


def _explainable(planted: Planted, crosscoder: Crosscoder, statistics: Statistics) -> list[float]:
    variance = (statistics.square - statistics.total.pow(2).sum(dim=1) / statistics.tokens) / statistics.tokens
    noise = (planted.difficulty.noise * planted.scale * crosscoder.scale).pow(2)
    return (1 - noise / variance).tolist()


def _draw_kinds(count: int, generator: torch.Generator) -> Int[Tensor, " feature"]:
    edges = (torch.tensor(list(KINDS.values())).cumsum(0) * count).round()
    ordered = torch.bucketize(torch.arange(count), edges, right=True).clamp(max=len(KINDS) - 1)
    return ordered[torch.randperm(count, generator=generator)]


def _draw_directions(
    difficulty: Difficulty, kinds: Int[Tensor, " feature"], generator: torch.Generator
) -> Float[Tensor, "feature checkpoint d_model"]:
    """Draw one direction for each feature, which turns towards a new one at each checkpoint if it is rotated."""
    shape = (difficulty.features, difficulty.width)
    least, largest = (value * pi / 180 for value in difficulty.angle)
    angle = least + (largest - least) * torch.rand(difficulty.features, 1, generator=generator)
    angle *= kinds[:, None] == list(KINDS).index("rotated")
    directions = [normalize(torch.randn(shape, generator=generator), dim=-1)]
    for _ in range(1, difficulty.checkpoints):
        last, new = directions[-1], torch.randn(shape, generator=generator)
        towards = normalize(new - (new * last).sum(dim=-1, keepdim=True) * last, dim=-1)
        directions.append(angle.cos() * last + angle.sin() * towards)
    return torch.stack(directions, dim=1)


def _draw_strength(
    difficulty: Difficulty, kinds: Int[Tensor, " feature"], generator: torch.Generator
) -> Float[Tensor, "feature checkpoint"]:
    """Return one where a feature is present and zero where not; steps between one and `weakest`, in any order."""
    M, count, names = difficulty.checkpoints, len(kinds), list(KINDS)
    change = torch.randint(1, M, (count, 1), generator=generator)
    later = torch.arange(M) >= change
    steps = difficulty.weakest ** torch.linspace(0, 1, M)
    order = torch.rand(count, M, generator=generator).argsort(dim=1)
    strength = torch.ones(count, M)
    for name, values in {"emerging": later.float(), "vanishing": 1 - later.float(), "strength": steps[order]}.items():
        strength = torch.where(kinds[:, None] == names.index(name), values, strength)
    return strength


def main() -> None:
    """Print what each variant finds, over all seeds."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    difficulty = Difficulty(**{name: getattr(arguments, name) for name in DIFFICULTY_OPTIONS})
    summaries = []
    for variant in arguments.variants:
        runs = [run(variant, difficulty, arguments, seed) for seed in arguments.seeds]
        summaries.append(summarise(variant, runs))
        sys.stdout.write(table(summaries[-1]))
        sys.stdout.flush()
    if arguments.json:
        document = {"difficulty": asdict(difficulty), "seeds": arguments.seeds, "variants": summaries}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def run(variant: str, difficulty: Difficulty, arguments: argparse.Namespace, seed: int) -> Run:
    """Train one variant on one dictionary, both drawn by the seed, and compare."""
    planted = plant(difficulty, torch.Generator().manual_seed(seed))
    settings = settings_of(variant, planted, arguments.k_factor, arguments.steps)
    start = time.perf_counter()
    crosscoder = train(planted, settings, seed)
    seconds = time.perf_counter() - start
    held_out = PlantedActivations(planted, EVALUATION_ROWS, 2 * seed + 1)
    statistics = measure_reconstruction(crosscoder, held_out.blocks())
    return Run(score(planted, crosscoder, statistics, arguments.ratio), planted.l0, seconds)


def settings_of(variant: str, planted: Planted, k_factor: float = 1.0, steps: int | None = None) -> CrosscoderSettings:
    """Return the settings that a variant is trained with; `k_factor` makes its k wrong."""
    own = {**COMMON, **OWN[variant], **({"steps": steps} if steps else {})}
    own["dictionary_size"] = round(DICTIONARY_RATIO * planted.difficulty.features)
    if "k" in VARIANTS[variant].model_fields:
        own["k"] = round(k_factor * planted.l0)
    return VARIANTS[variant](sparsity=variant, **own)


def summarise(variant: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Return shares over the features of all runs, and the means of what each run has one of."""
    scores = [each.score for each in runs]
    kinds = torch.cat([each.kinds for each in scores])
    findings = {"recovered": _shares(torch.cat([each.recovered for each in scores]), kinds)}
    for name in MEASURES:
        findings[name] = _shares(torch.cat([each.classified[name] for each in scores]), kinds)
        emerging = torch.cat([each.emerging[name] for each in scores])
        findings[name]["false_emerged"] = float(emerging[kinds == 0].float().mean())
        said, wrong = (sum(each.latents[name][place] for each in scores) for place in (0, 1))
        findings[name]["false_latents"] = wrong / said if said else float("nan")
    return {
        "variant": variant,
        "findings": findings,
        "explained_variance": np.mean([each.explained_variance for each in scores], axis=0).tolist(),
        "explainable": np.mean([each.explainable for each in scores], axis=0).tolist(),
        "l0": float(np.mean([each.l0 for each in scores])),
        "planted_l0": float(np.mean([each.planted_l0 for each in runs])),
        "dead": float(np.mean([each.dead for each in scores])),
        "seconds": float(np.mean([each.seconds for each in runs])),
    }


def table(summary: dict[str, Any]) -> str:
    """Return a summary as text."""
    explained, explainable = (
        " ".join(f"{value:.3f}" for value in summary[name]) for name in ("explained_variance", "explainable")
    )
    lines = [
        f"{summary['variant']}: explained variance {explained} (all but noise: {explainable}), L0 {summary['l0']:.1f}"
        f" (planted: {summary['planted_l0']:.1f}), dead {summary['dead']:.0%}, {summary['seconds']:.0f} s a run"
    ]
    columns = ["all", *KINDS, "false_emerged", "false_latents"]
    lines.append(" " * 12 + "".join(f"{name:>15}" for name in columns))
    for name, finding in summary["findings"].items():
        cells = "".join(f"{finding[column]:15.3f}" if column in finding else " " * 15 for column in columns)
        lines.append(f"  {name:<10}{cells}".rstrip())
    return "\n".join(lines) + "\n\n"


def _shares(found: Bool[Tensor, " feature"], kinds: Int[Tensor, " feature"]) -> dict[str, float]:
    by_kind = {name: float(found[kinds == number].float().mean()) for number, name in enumerate(KINDS)}
    return {"all": float(found.float().mean()), **by_kind}


def _arguments() -> argparse.Namespace:
    default = Difficulty()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(OWN), default=list(OWN))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of dictionary, activations and training")
    for name in DIFFICULTY_OPTIONS:
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default: {value}")
    parser.add_argument("--k-factor", type=float, default=1.0, help="k over the planted L0, where a variant has a k")
    parser.add_argument("--steps", type=int, help="training steps; default: those of the variant")
    parser.add_argument("--ratio", type=float, default=PRESENT_RATIO, help="part of the largest that is present")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
