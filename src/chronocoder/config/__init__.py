"""The configuration as typed models. Importing this package never imports torch."""

from chronocoder.config.analysis import (
    AttributionSettings,
    CrosscoderSettings,
    EvaluationSettings,
    FeatureSettings,
    HarvestSettings,
    SimilaritySettings,
)
from chronocoder.config.base import Settings
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

__all__ = [
    "AttributionSettings",
    "BlimpTask",
    "Comparison",
    "Corpus",
    "CorpusSettings",
    "CrosscoderSettings",
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
    "load_experiment",
    "parse_experiment",
]
