"""The configuration as typed models. Importing this package never imports torch."""

from chronocoder.config.analysis import (
    AttributionSettings,
    EvaluationSettings,
    FeatureSettings,
    HarvestSettings,
    SimilaritySettings,
    TrainingSettings,
)
from chronocoder.config.experiment import Experiment, load_experiment, parse_experiment
from chronocoder.config.suites import (
    BlimpTask,
    Comparison,
    Corpus,
    CorpusSettings,
    HubCorpus,
    HubSource,
    LocalCheckpoint,
    LocalSource,
    NurseryCorpus,
    NurserySource,
    NurseryTask,
    Source,
    Suite,
    Task,
    TextCorpus,
)
from chronocoder.settings import Settings

__all__ = [
    "AttributionSettings",
    "BlimpTask",
    "Comparison",
    "Corpus",
    "CorpusSettings",
    "EvaluationSettings",
    "Experiment",
    "FeatureSettings",
    "HarvestSettings",
    "HubCorpus",
    "HubSource",
    "LocalCheckpoint",
    "LocalSource",
    "NurseryCorpus",
    "NurserySource",
    "NurseryTask",
    "Settings",
    "SimilaritySettings",
    "Source",
    "Suite",
    "Task",
    "TextCorpus",
    "TrainingSettings",
    "load_experiment",
    "parse_experiment",
]
