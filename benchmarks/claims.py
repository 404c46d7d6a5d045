"""Tabulate which claims about the nursery hold in every pretraining seed and every crosscoder seed.

    snakemake --configfile experiments/nursery-seeds.yaml --cores all && python benchmarks/claims.py results/seeds

A claim about features is of features that one half of the prefixes chose, at the first checkpoint of the comparison;
the other half tells, also of the matching features of another crosscoder seed.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.controls import SHUFFLED
from chronocoder.attribution.summary import BASES, TOTAL
from chronocoder.attribution.surface import CHOOSING, KEPT, TELLING, SurfaceFeature, find_surface_features, follow
from chronocoder.stores import load_store

SURFACE, CONFLICTING = "agreement_simple", "agreement_across_prepositional_phrase"
COMPARISON, VARIANT = "abstraction", "batchtopk"
CHANCE, LEARNT = 0.5, 0.95
LEAST_COSINE = 0.7
CHANGING = ("emerged", "discontinued", "transient", "intermittent")
FALSE_RATE, LEVEL = 0.01, 0.05


class Finding(NamedTuple):
    """What one run says of a claim.

    Attributes:
        holds: whether it does; None where the run has nothing to say.
        numbers: in words.
    """

    holds: bool | None
    numbers: str


class Run:
    """The stores of one crosscoder, and of its suite."""

    def __init__(self, suite: Path, seed: int) -> None:
        self.suite, self.seed = suite, seed
        self.path = suite / COMPARISON / VARIANT / f"seed{seed}"
        self.relie = load_store(self.path / "relie.zarr")
        self.evaluation = load_store(self.path / "evaluation.zarr")
        self.first, self.last = (str(self.relie["checkpoint"].values[place]) for place in (0, -1))

    @cached_property
    def chosen(self) -> list[SurfaceFeature]:
        """The features that stand for the surface rule, chosen on one half of the prefixes."""
        return find_surface_features(self.relie, SURFACE, CONFLICTING, self.first)

    @cached_property
    def followed(self) -> xr.Dataset:
        """What they do in the other half."""
        return follow(self.relie, CONFLICTING, self.chosen)


def surface_first(run: Run) -> Finding:
    """Say whether at the first checkpoint the surface task is above chance and the conflicting one below it."""
    there = load_store(run.suite / "behaviour.zarr").sel(checkpoint=run.first)
    low, high = there["accuracy_low"].sel(task=SURFACE), there["accuracy_high"].sel(task=CONFLICTING)
    accuracies = [f"{float(there['accuracy'].sel(task=task)):.2f}" for task in (SURFACE, CONFLICTING)]
    return Finding(bool(low > CHANCE and high < CHANCE), " and ".join(accuracies))


def learnt(run: Run) -> Finding:
    """Say whether at the last checkpoint of the pretraining every task is above .95."""
    accuracy = load_store(run.suite / "behaviour.zarr")["accuracy"].isel(checkpoint=-1)
    return Finding(bool((accuracy >= LEARNT).all()), f"lowest {float(accuracy.min()):.2f}")


def found(run: Run) -> Finding:
    """Say whether a feature stands for the nearest noun: it helps where that is right, and harms where it is wrong."""
    return Finding(bool(run.chosen), f"{len(run.chosen)} features")


def harm_stays(run: Run) -> Finding:
    """Say whether together they still do at least half of their harm, in the same condition, at the last checkpoint."""
    first, last = run.followed["effect"].sel(where="harmed").sum("place").values
    return Finding(bool(last <= KEPT * first), f"{first:+.2f} → {last:+.2f}")


def none_gives_way(run: Run) -> Finding:
    """Say whether each one whose harm the other half confirms keeps at least half of it."""
    kept = run.followed["kept"].values[run.followed["confirmed"].values]
    return Finding(bool(kept.all()) if kept.size else None, f"{kept.sum()} of {kept.size}")


def help_is_new(run: Run) -> Finding:
    """Say whether the strongest of them newly helps in the opposite condition, beyond random directions."""
    if not run.chosen:
        return Finding(None, "none")
    strongest = run.followed.isel(place=0)
    effect, level = (strongest[name].sel(where="other").values for name in ("effect", "level"))
    newly = int(run.followed["helps_newly"].sum())
    return Finding(
        bool(strongest["helps_newly"]),
        f"{effect[0]:+.2f} → {effect[-1]:+.2f} (random {level[-1]:.2f}); {newly} of {len(run.chosen)}",
    )


def together_they_help(run: Run) -> Finding:
    """Say whether their help in the opposite condition grows to more than random directions add up to."""
    if not run.chosen:
        return Finding(None, "none")
    effect, level = (run.followed[name].sel(where="other").sum("place").values for name in ("effect", "level"))
    text = f"{effect[0]:+.2f} → {effect[-1]:+.2f} (random {level[-1]:.2f})"
    return Finding(bool(effect[-1] > max(level[-1], 2 * effect[0])), text)


def helper_is_one_of_them(run: Run) -> Finding:
    """Say whether the feature that helps most at the last checkpoint is one that stood for the surface rule."""
    halves = run.relie["half_indirect_effect"].sel(task=CONFLICTING)
    helps = halves.sel(checkpoint=run.last, half=CHOOSING).max("condition")
    feature = int(helps["feature"].values[helps.values.argmax()])
    told = float(halves.sel(feature=feature, checkpoint=run.last, half=TELLING).max())
    return Finding(feature in [of.feature for of in run.chosen], f"feature {feature}, {told:+.2f}")


def matches_agree(run: Run) -> Finding:
    """Say whether the matching features of another crosscoder seed harm and keep it, and the strongest newly helps."""
    stores = run.suite / COMPARISON / VARIANT
    matches = load_store(stores / "seeds.zarr")
    if run.seed not in matches["seed"].values or not (reference := Run(run.suite, matches.attrs["seeds"][0])).chosen:
        return Finding(None, "the reference")
    own = matches.sel(seed=run.seed)
    strong = [of for of in reference.chosen if float(own["cosine"].sel(feature=of.feature)) >= LEAST_COSINE]
    matched = [of._replace(feature=int(own["matched_feature"].sel(feature=of.feature))) for of in strong]
    if not matched:
        return Finding(None, f"none with a cosine of {LEAST_COSINE}")
    there = follow(run.relie, CONFLICTING, matched)
    harming, kept, newly = (int(there[name].sum()) for name in ("confirmed", "kept", "helps_newly"))
    return Finding(
        bool(kept == harming == len(matched) and there["helps_newly"][0]),
        f"of {len(matched)} {harming} harm, {kept} keep it, {newly} newly help",
    )


def emerged_by_chance(run: Run) -> Finding:
    """Say whether on no task more features emerge than random directions do, by the share of the total effect."""
    p_values = run.relie["class_p_value"].sel({"class": "emerged", "basis": TOTAL})
    return Finding(bool((p_values >= LEVEL).all()), f"p from {float(p_values.min()):.2g}")


def sharpness_counts(run: Run) -> Finding:
    """Say whether by the share of the total effect fewer features emerge than by published RelIE."""
    counts = run.relie["class_count"].sel({"class": "emerged"}).sum("task")
    published, total = (int(counts.sel(basis=basis)) for basis in BASES[:2])
    return Finding(total < published, f"{total} against {published}")


def codes_tell_of_later(run: Run) -> Finding:
    """Say whether splicing lowers cross-entropy at the first checkpoint, and not with that checkpoint's own codes."""
    there = run.evaluation.isel(checkpoint=0)
    joint, own = (float(there[f"cross_entropy_recovered{name}"]) for name in ("", "_own"))
    return Finding(joint > 1 >= own, f"{joint:.4f}, own {own:.4f}")


def identity_is_quiet(run: Run) -> Finding:
    """Say whether of the same checkpoint twice fewer than one in a hundred decided classes are changes."""
    relie = load_store(run.suite / "identity" / VARIANT / f"seed{run.seed}" / "relie.zarr")
    counts = relie["class_count"].sel(basis="published").sum("task")
    changing = int(counts.sel({"class": list(CHANGING)}).sum())
    decided = changing + int(counts.sel({"class": "maintained"}))
    return Finding(changing < FALSE_RATE * decided, f"{changing} of {decided} decided")


CLAIMS: dict[str, Callable[[Run], Finding]] = {
    "At step64 agreement follows the nearest noun (accuracy on the two tasks)": surface_first,
    "At the end every task is above .95": learnt,
    "Some features stand for the nearest noun at step64": found,
    "Together they keep their harm (sum of IE, other half)": harm_stays,
    "None of them gives way": none_gives_way,
    "The strongest newly helps in the opposite condition (IE, other half)": help_is_new,
    "Together they come to help in the opposite condition (sum of IE, other half)": together_they_help,
    "The feature that helps most at step320 is one of them (IE, other half)": helper_is_one_of_them,
    "Matched features of another crosscoder seed do the same": matches_agree,
    "No more features emerge than random directions (share of total)": emerged_by_chance,
    "Published RelIE calls more features emerged than the share of total": sharpness_counts,
    "Codes tell step64 of step320 (recovered above 1, not with own codes)": codes_tell_of_later,
    "Identity comparison: false rate under 1 %": identity_is_quiet,
}


def rows(runs: list[Run]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = [f"{run.suite.name[-1]}.{run.seed}" for run in runs]
    yield f"| claim | holds in | {' | '.join(names)} |"
    yield "| --- " * (2 + len(names)) + "|"
    for claim, finding_of in CLAIMS.items():
        findings = [finding_of(run) for run in runs]
        told = [of for of in findings if of.holds is not None]
        cells = [f"{'' if of.holds is None else 'yes: ' if of.holds else '**no**: '}{of.numbers}" for of in findings]
        yield f"| {claim} | {sum(bool(of.holds) for of in told)} of {len(told)} | {' | '.join(cells)} |"


def controls(suite: Path, seeds: list[int]) -> Iterator[str]:
    """Yield what the other pretraining seed and single dictionaries say, where the suite has them."""
    for seed in seeds:
        path = suite / "other_pretraining_seed" / VARIANT / f"seed{seed}" / "relie.zarr"
        if path.exists():
            relie = load_store(path)
            counts = relie["class_count"].sel(basis="published").sum("task")
            random = relie["control_class_count"].sel(basis="published").sum("task")
            random = random.isel(control=[name != SHUFFLED for name in random["control"].values]).sum("control")
            tested, of_random = int(relie["features_tested"].sum()), int(relie["controls_tested"].sum())
            names = ("emerged", "maintained", "discontinued")
            own, chance = (of.sel({"class": list(names)}).values for of in (counts / tested, random / of_random))
            listed = ", ".join(
                f"{name} {100 * part:.1f} % (random directions {100 * other:.1f} %)"
                for name, part, other in zip(names, own, chance, strict=True)
            )
            yield f"- Another pretraining seed at the same step, crosscoder seed {seed}: of {tested} features {listed}"
        path = suite / COMPARISON / VARIANT / f"seed{seed}" / "baseline.zarr"
        if path.exists():
            baseline = load_store(path).sel(cosine_at_least=0.0)
            means = {
                name: [
                    f"{float(np.nanmean(baseline[name].sel(measure=measure))):.2f}"
                    for measure in baseline["measure"].values
                ]
                for name in ("spearman", "class_agreement")
            }
            yield (
                f"- Single dictionaries matched afterwards, crosscoder seed {seed}: Spearman with the exact share"
                f" {' / '.join(means['spearman'])}, same class {' / '.join(means['class_agreement'])}"
                f" ({' / '.join(str(name) for name in baseline['measure'].values)})"
            )


def main() -> None:
    """Read the stores, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results directory of experiments/nursery-seeds.yaml")
    suites = sorted(path for path in parser.parse_args().results.iterdir() if (path / COMPARISON).is_dir())
    seeds = sorted(
        int(path.name.removeprefix("seed")) for path in (suites[0] / COMPARISON / VARIANT).glob("seed[0-9]*")
    )
    runs = [Run(suite, seed) for suite in suites for seed in seeds]
    lines = [*rows(runs), "", *(line for suite in suites for line in controls(suite, seeds))]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
