"""What can be quoted in a paper: how the numbers were made, in the numbers of this report, and whom to cite."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import xarray as xr

from chronocoder.config.taskspace import SWAPPED
from chronocoder.figures.transfer import method_labels
from chronocoder.report.controls import has_random
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.summary import quality_ranges
from chronocoder.stores import names
from chronocoder.wording import counted, in_words, listed, percent, short_count

CROSSCODING = """@article{bayazit2025crosscoding,
  title         = {Crosscoding Through Time: Tracking Emergence \\& Consolidation Of Linguistic Representations
                   Throughout {LLM} Pretraining},
  author        = {Bayazit, Deniz and Mueller, Aaron and Bosselut, Antoine},
  journal       = {arXiv preprint arXiv:2509.05291},
  eprint        = {2509.05291},
  archivePrefix = {arXiv},
  year          = {2025}
}"""
TASK_SPACES = """@article{weber2024taskspaces,
  title         = {Interpretability of Language Models via Task Spaces},
  author        = {Weber, Lucas and Jumelet, Jaap and Bruni, Elia and Hupkes, Dieuwke},
  journal       = {arXiv preprint arXiv:2406.06441},
  eprint        = {2406.06441},
  archivePrefix = {arXiv},
  year          = {2024}
}"""


def citations(inputs: ReportInputs) -> dict[str, str]:
    """Return BibTeX entries by what they are of: this software, and the papers whose methods the report uses."""
    year = str(inputs.behaviour.attrs["created"])[:4]
    software = f"""@software{{chronocoder,
  title   = {{Chronocoder}},
  author  = {{{{The Chronocoder authors}}}},
  version = {{{version("chronocoder")}}},
  year    = {{{year}}}
}}"""
    found = {"This software": software}
    if inputs.runs:
        found["Crosscoders over checkpoints, IE, RelIE and RelDec"] = CROSSCODING
    if inputs.transfer is not None:
        found["Task spaces, similarity probing and FTGD"] = TASK_SPACES
    return found


def method_text(inputs: ReportInputs) -> list[str]:
    """Return paragraphs on the method, with the numbers of this suite."""
    paragraphs = [_behaviour_text(inputs)]
    if inputs.runs:
        paragraphs += [_training_text(inputs), _effect_text(inputs.runs[0])]
    if inputs.transfer is not None:
        paragraphs.append(_space_text(inputs.transfer))
    return paragraphs


def _behaviour_text(inputs: ReportInputs) -> str:
    behaviour = inputs.behaviour
    tokens = behaviour["tokens_seen"].values
    metrics = dict.fromkeys(in_words(str(name)) for name in behaviour["metric"].values)
    pairs = short_count(int(behaviour["n"].isel(checkpoint=-1).sum()))
    return (
        f"We studied {counted(behaviour.sizes['checkpoint'], 'checkpoint')} of {inputs.suite}, from"
        f" {short_count(tokens.min())} to {short_count(tokens.max())} tokens of pretraining, with Chronocoder"
        f" {version('chronocoder')}. Accuracy is the fraction of minimal pairs in which the model prefers the"
        f" grammatical sentence ({counted(behaviour.sizes['task'], 'task')}, {pairs} pairs in all; metric:"
        f" {listed(list(metrics))})."
    )


def _training_text(inputs: ReportInputs) -> str:
    comparisons = [f"{name} ({', '.join(checkpoints)})" for name, checkpoints in inputs.comparisons.items()]
    first = inputs.runs[0]
    variants = listed(_distinct([run.key.variant for run in inputs.runs]))
    seeds = listed(_distinct([str(run.key.seed) for run in inputs.runs]))
    latents = listed(_distinct([str(run.relie.sizes["feature"]) for run in inputs.runs]))
    explained, recovered = quality_ranges(inputs.runs)
    sites = listed(_distinct([str(run.relie.attrs["site"]) for run in inputs.runs]))
    return (
        f"For each comparison of checkpoints – {'; '.join(comparisons)} – crosscoders with {latents} latents"
        f" were trained jointly on the activations of its checkpoints at {sites} (variants: {variants}; seeds:"
        f" {seeds}). On validation text they explain {explained} of the variance of a checkpoint’s activations and"
        f" recover {recovered} of its cross-entropy. Training of {first.key.label}: {_settings_words(first.training)}."
    )


def _effect_text(run: Run) -> str:
    settings, random = json.loads(run.relie.attrs["settings"]), has_random(run.relie)
    smallest = settings["smallest_effect"]
    conditions = [
        "its interval excludes zero",
        *(
            [f"it exceeds the level that {run.random_level} of comparable random directions stay below"]
            if random
            else []
        ),
        *([f"it is at least {smallest:g} in size"] if smallest else []),
        f"it passes a permutation test at a false discovery rate of {settings['false_discovery_rate']:g} (Benjamini and"
        " Hochberg)",
    ]
    beside = " Every class count is compared with that of random directions." if random else ""
    return (
        f"The indirect effect (IE) of a feature is the change of the metric, wrong minus right, when the feature is"
        f" {run.intervention} at one checkpoint, by {run.estimator}: the mean over the pairs of a condition, then over"
        f" conditions. Intervals are {percent(run.confidence)} bootstrap intervals ({settings['bootstrap_samples']}"
        f" resamples). An effect counts as measurable if {listed(conditions)}. RelIE is |IE| at a checkpoint divided by"
        " its sum over checkpoints. Features are classed as emerged, maintained or discontinued by RelIE with IE"
        f" divided by the checkpoint’s total |IE|, and only where the bootstrap interval of RelIE supports it.{beside}"
    )


def _space_text(transfer: xr.Dataset) -> str:
    settings = json.loads(transfer.attrs["settings"])
    control = SWAPPED in names(transfer, "objective")
    return (
        f"Copies of {counted(transfer.sizes['checkpoint'], 'checkpoint')} were tuned on each of"
        f" {counted(transfer.sizes['source'], 'task')} for {settings['steps']} steps of {settings['batch_pairs']} pairs"
        f" with {counted(transfer.sizes['seed'], 'seed')}, by {listed(list(method_labels(transfer).values()))},"
        " and evaluated on held-out pairs of all tasks (similarity probing)."
        f"{' Tuning with right and wrong swapped at random is the control.' if control else ''}"
    )


def _settings_words(training: xr.Dataset) -> str:
    settings = json.loads(training.attrs["settings"])
    return ", ".join(f"{in_words(name)} {value}" for name, value in settings.items() if value is not None)


def _distinct(values: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))
