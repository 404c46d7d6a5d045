"""The whole configuration, read from a file or from Snakemake's `config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from chronocoder.config.analysis import (
    AblationSettings,
    AttributionJobSettings,
    AttributionSettings,
    BehaviourJobSettings,
    ConsolidationSettings,
    EvaluationSettings,
    FeatureSettings,
    HarvestSettings,
    SimilaritySettings,
    TrainingSettings,
    TrajectorySettings,
)
from chronocoder.config.controls import (
    check_baseline_variants,
    check_every_suite_is_used,
    check_foreign_checkpoints,
)
from chronocoder.config.loading import NONE
from chronocoder.config.misspelt import meant_key
from chronocoder.config.suites import Suite
from chronocoder.config.taskspace import TaskSpaceSettings
from chronocoder.errors import ConfigError
from chronocoder.labels import place_of
from chronocoder.settings import Name, Settings
from chronocoder.variants import Variant

_LISTED = "keys are listed in docs/configuration.md"


class Experiment(Settings):
    """An experiment: suites, and what is done with each of them."""

    results: str = Field("results", description="Directory that all results go to.")
    seeds: list[int] = Field([0], min_length=1, description="Seeds; each trains every crosscoder anew.")
    suites: dict[Name, Suite] = Field(min_length=1, description="Pretraining runs, by name.")
    variants: dict[Name, Variant] = Field(
        default_factory=dict, description="Crosscoders, by name; none where no suite has comparisons."
    )
    behaviour: BehaviourJobSettings = Field(
        default_factory=BehaviourJobSettings, description="Scoring checkpoints on tasks."
    )
    harvest: HarvestSettings = Field(default_factory=HarvestSettings, description="Reading activations.")
    similarity: SimilaritySettings = Field(default_factory=SimilaritySettings, description="Comparing checkpoints.")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="Judging crosscoders.")
    attribution: AttributionSettings = Field(default_factory=AttributionSettings, description="Measuring effects.")
    attribution_jobs: AttributionJobSettings = Field(
        default_factory=AttributionJobSettings, description="Running attributions and ablations."
    )
    ablation: AblationSettings = Field(default_factory=AblationSettings, description="Checking the effects.")
    trajectories: TrajectorySettings = Field(default_factory=TrajectorySettings, description="Clustering courses.")
    consolidation: ConsolidationSettings = Field(
        default_factory=ConsolidationSettings, description="Comparing languages."
    )
    taskspace: TaskSpaceSettings = Field(
        default_factory=TaskSpaceSettings, description="Relating tasks to one another."
    )
    features: FeatureSettings = Field(default_factory=FeatureSettings, description="Showing features.")
    annotations: str = Field(
        "annotations.csv",
        description="CSV file of what readers call features, as the report exports it; relative to the directory of the"
        " configuration file. The report shows it where it exists.",
    )
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="Running trainings.")

    def variants_of(self, suite: str, comparison: str) -> list[str]:
        """Return the names of the variants that are trained on a comparison."""
        return self.suites[suite].comparisons[comparison].variants or list(self.variants)

    def with_dearest_choice(self) -> "Experiment":
        """Return the experiment as if each choice took all that its budget allows, for a plan of the costs."""
        suites = {
            name: suite.with_comparisons(suite.auto.dearest(list(suite.tokens_seen))) if suite.auto else suite
            for name, suite in self.suites.items()
        }
        return self.model_copy(update={"suites": suites})

    def tokens_seen_of(self, suite: str, checkpoint: str) -> int:
        """Return the tokens seen by a checkpoint that a comparison of `suite` names."""
        place = place_of(checkpoint, suite)
        return self.suites[place.suite].tokens_seen[place.revision]

    @model_validator(mode="after")
    def _dictionaries_can_be_cut(self) -> "Experiment":
        shards = self.training.dictionary_shards
        for name, variant in self.variants.items():
            if variant.dictionary_size % shards:
                raise ValueError(
                    f"variants.{name}.dictionary_size {variant.dictionary_size} is no multiple of"
                    f" training.dictionary_shards {shards}; change one"
                )
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {seeds} repeat; list each of them once")
        return seeds

    @model_validator(mode="after")
    def _counterfactuals_exist(self) -> "Experiment":
        if self.attribution.intervention == "counterfactual":
            for suite_name, suite in self.suites.items():
                for name, task in suite.tasks.items():
                    if not task.supplies_counterfactual:
                        raise ValueError(
                            f"attribution.intervention 'counterfactual': suites.{suite_name}.tasks.{name} of kind"
                            f" '{task.kind}' has no counterfactual prefixes; leave it out, set its metric to"
                            " continuation or sentence, whose sentences are each other's, or set intervention to zero"
                        )
        return self

    @model_validator(mode="after")
    def _task_spaces_have_pairs(self) -> "Experiment":
        for name, suite in self.suites.items():
            try:
                suite.check_space_pairs(self.taskspace.held_out)
            except ValueError as error:
                raise ValueError(f"suites.{name}.{error}") from None
        return self

    @model_validator(mode="after")
    def _spread_models_have_one_process(self) -> "Experiment":
        processes = {"attribution_jobs.processes": self.attribution_jobs.processes}
        if self.training.activations == "streaming":
            processes["training.processes"] = self.training.processes
        for name, suite in self.suites.items():
            for key, count in processes.items():
                if suite.loading.device_map != NONE and count > 1:
                    raise ValueError(
                        f"{key} {count}: each process would spread its models over the same GPUs, as"
                        f" suites.{name}.loading.device_map {suite.loading.device_map} says; set {key} to 1, or"
                        f" device_map to {NONE}"
                    )
        return self

    @model_validator(mode="after")
    def _tuned_models_have_gradients(self) -> "Experiment":
        for name, suite in self.suites.items():
            if suite.taskspace is not None and suite.loading.quantization != NONE:
                raise ValueError(
                    f"suites.{name}.taskspace: copies are tuned in float32, and loading.quantization"
                    f" {suite.loading.quantization} leaves weights without gradients; set it to {NONE}, or remove the"
                    " task space"
                )
        return self

    @model_validator(mode="after")
    def _variants_exist(self) -> "Experiment":
        for suite_name, suite in self.suites.items():
            if suite.comparison_names and not self.variants:
                raise ValueError(f"variants: empty, and suites.{suite_name} has comparisons; define a variant")
            for name in suite.comparisons:
                for variant in self.variants_of(suite_name, name):
                    self._check_variant(f"suites.{suite_name}.comparisons.{name}", variant)
            for variant in (suite.auto and suite.auto.variants) or []:
                self._check_variant(f"suites.{suite_name}.auto.variants", variant)
        return self

    def _check_variant(self, key: str, variant: str) -> None:
        if variant not in self.variants:
            raise ValueError(f"{key}: variant '{variant}' is not defined; choose from {', '.join(self.variants)}")

    @model_validator(mode="after")
    def _suites_fit_each_other(self) -> "Experiment":
        check_foreign_checkpoints(self.suites)
        check_every_suite_is_used(self.suites)
        pairs = [(suite, name) for suite, settings in self.suites.items() for name in settings.comparisons]
        check_baseline_variants(self.suites, {pair: self.variants_of(*pair) for pair in pairs})
        return self


def parse_experiment(values: Mapping[str, Any], origin: str) -> Experiment:
    """Validate a configuration.

    Args:
        values: the configuration as nested mappings.
        origin: the file it was read from, for the message.

    Raises:
        ConfigError: names each wrong key, its value and the remedy.
    """
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        lines = [_describe(entry, values) for entry in error.errors()]
        raise ConfigError("\n".join([f"{origin}: {len(lines)} wrong:", *lines])) from None


def load_experiment(path: Path) -> Experiment:
    """Read and validate a configuration file.

    Raises:
        ConfigError: it cannot be read, or a key is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: no readable configuration ({error}); correct the path or the file") from error
    return parse_experiment(values, str(path))


def _describe(entry: Mapping[str, Any], values: Any) -> str:
    key = ".".join(_written_keys(entry, values)) or "(whole file)"
    described = _described(entry)
    if described is not None:
        return f"  {key}: {described}"
    shown = repr(entry["input"])
    message = entry["msg"].removeprefix("Value error, ")
    return f"  {key}: {message}" + (f" (found {shown})" if len(shown) < 80 else "")


def _described(entry: Mapping[str, Any]) -> str | None:
    """Return what is wrong and the remedy, of the errors that pydantic describes in its own terms."""
    context = entry.get("ctx", {})
    kind = str(context.get("discriminator", "")).strip("'")
    match entry["type"]:
        case "extra_forbidden":
            meant = meant_key(Experiment.model_json_schema(), entry["loc"])
            perhaps = f", perhaps to {meant}" if meant else ""
            return f"unknown key; remove it or correct its spelling{perhaps} ({_LISTED})"
        case "missing":
            return f"missing; give it ({_LISTED})"
        case "union_tag_not_found":
            return f"{kind} is missing; give it ({_LISTED})"
        case "union_tag_invalid":
            known = str(context["expected_tags"]).replace("'", "")
            return f"{kind} '{context['tag']}' is not known; choose from {known}"
    return None


def _written_keys(entry: Mapping[str, Any], place: Any) -> list[str]:
    """Return the keys of an error's location that are in the file: pydantic puts the kind of a choice among them."""
    location, keys = entry["loc"], []
    for position, part in enumerate(location):
        missing = entry["type"] == "missing" and position == len(location) - 1
        if isinstance(place, Mapping):
            if part not in place and not missing:
                continue
            place = place.get(part)
        elif isinstance(part, str) and not missing:
            continue
        elif isinstance(place, list):
            place = place[part] if part < len(place) else None
        keys.append(str(part))
    return keys
