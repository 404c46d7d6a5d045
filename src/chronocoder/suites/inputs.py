"""What a configuration names has to be there, which is checked before anything runs.

Snakemake takes an existing result as good where something that it depends on cannot be made: a task whose file is
missing would be left out without a word. Imports nothing heavy.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chronocoder.config import (
    CorpusSource,
    Experiment,
    HubDataset,
    LocalSource,
    Suite,
    TableSource,
    Task,
    files_at,
    parse_experiment,
)
from chronocoder.errors import ConfigError, CorpusError
from chronocoder.suites.agreement import check_local_checkpoints
from chronocoder.suites.corpora.files import corpus_files

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_EMPTY = "is empty"
_UNREADABLE = "you may not read it: change its permissions"


def checked_experiment(values: Mapping[str, Any], origin: str) -> Experiment:
    """Validate a configuration and what it names; the arguments are those of `parse_experiment`.

    Raises:
        ConfigError: something is wrong; the message names the key, the value and the remedy.
    """
    experiment = parse_experiment(values, origin)
    check_inputs(experiment)
    check_local_checkpoints(experiment)
    return experiment


def check_inputs(experiment: Experiment) -> None:
    """Check that the files and directories that a configuration names exist, can be read, and are not empty.

    Raises:
        ConfigError: some do not; the message names the key, the value and the remedy of each.
    """
    problems = [
        f"suites.{name}.{problem}" for name, suite in experiment.suites.items() for problem in _problems_of(suite)
    ]
    if Path(experiment.results).exists() and not Path(experiment.results).is_dir():
        problems.append(f"results '{experiment.results}': is no directory; name one, or move the file away")
    if problems:
        raise ConfigError("\n".join(problems))


def task_files(task: Task) -> list[Path]:
    """Return the local files that a task is read from; none where its pairs are generated or on the hub."""
    if isinstance(task, TableSource) and task.dataset is not None:
        return [] if task.needs_network else files_at(task.dataset)
    path = getattr(task, "path", None)
    return [Path(path)] if path else []


def weight_files(directory: Path) -> list[Path]:
    """Return the files that a model's weights are loaded from, whether they are there or only named by an index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).exists():
            return [directory / name]
        if (index := directory / f"{name}.index.json").is_file():
            with suppress(OSError, ValueError, KeyError, AttributeError):  # a damaged index is said by what loads it
                named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
                return [directory / file for file in sorted(set(named))]
    return sorted(path for pattern in _WEIGHTS for path in directory.glob(pattern))


def _problems_of(suite: Suite) -> Iterator[str]:
    for name, task in suite.tasks.items():
        for problem in _problems_of_task(task):
            yield f"tasks.{name}.{problem}; correct it, or remove the task"
    several = suite.corpus.kind == "mixture"
    for number, part in enumerate(suite.corpus.parts):
        yield from _problems_of_corpus(part, f"corpus.sources.{number}" if several else "corpus")
    if isinstance(suite.source, LocalSource):
        for name, checkpoint in suite.source.saved.items():
            if problem := _problem_of_model(Path(checkpoint.path)):
                yield (
                    f"source.checkpoints.{name}.path '{checkpoint.path}': {problem}; give a Hugging Face model"
                    " directory, or remove the checkpoint"
                )


def _problems_of_task(task: Task) -> Iterator[str]:
    if isinstance(task, TableSource) and task.dataset is not None:
        yield from _problems_of_dataset(task.dataset, task.needs_network)
        return
    for path in task_files(task):
        if problem := _problem_of_file(path):
            yield f"path '{path}': {problem}"


def _problems_of_corpus(place: CorpusSource, key: str) -> Iterator[str]:
    if isinstance(place, HubDataset):
        for problem in _problems_of_dataset(place.dataset, place.is_remote):
            yield f"{key}.{problem}; correct it"
        return
    try:
        files = corpus_files(place, key)
    except CorpusError as error:
        yield f"{key}: {error}"
        return
    problems = {path: problem for path in files if (problem := _problem_of_file(path))}
    blank = set(problems.values()) == {_EMPTY} and len(problems) == len(files)
    for path, problem in problems.items():
        if blank or problem != _EMPTY:  # empty files beside others are no fault
            yield f"{key}.path '{path}': {problem}; correct the path, or the file"


def _problems_of_dataset(dataset: str, remote: bool) -> Iterator[str]:
    if not remote and not files_at(dataset):
        yield f"dataset '{dataset}': the directory holds no files"
    elif remote and _looks_local(dataset):
        yield f"dataset '{dataset}': there is no such directory, and on the hub names are of the form owner/name"


def _looks_local(dataset: str) -> bool:
    return dataset.startswith((".", "/", "~")) or dataset.endswith("/") or dataset.count("/") > 1


def _problem_of_file(path: Path) -> str:
    """Return what is wrong with a file that is to be read; empty if nothing is."""
    if path.is_dir():
        return "is a directory, not a file"
    if not path.exists():
        return "there is no such file"
    if not os.access(path, os.R_OK):
        return _UNREADABLE
    return "" if path.stat().st_size else _EMPTY


def _problem_of_model(directory: Path) -> str:
    """Return what is wrong with the directory of a model; empty if nothing is."""
    if not directory.is_dir():
        return "is a file, not a directory" if directory.exists() else "there is no such directory"
    if not os.access(directory, os.R_OK | os.X_OK):
        return _UNREADABLE
    if problem := _problem_of_file(directory / "config.json"):
        return f"its config.json: {problem}"
    weights = weight_files(directory)
    if not weights:
        return f"holds no weights ({', '.join(_WEIGHTS)})"
    return next((f"{path.name}: {problem}" for path in weights if (problem := _problem_of_file(path))), "")
