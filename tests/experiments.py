"""Running the real Snakemake on small experiments."""

import copy
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from warm_python import warm_path

ROOT = Path(__file__).parents[1]


@dataclass
class Workflow:
    """One experiment in a directory of its own.

    Attributes:
        directory: where it runs; results go to `results` there.
        config: the configuration as plain values.
        options: how it is run.
        environment: what is set for it.
        warm: whether its jobs start with their libraries imported even if something is set for it.
    """

    directory: Path
    config: dict[str, Any]
    options: tuple[str, ...] = ("--cores", "2", "--show-failed-logs")
    environment: dict[str, str] = field(default_factory=dict)
    warm: bool = False

    def snakemake(self, *arguments: str, config: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with this or another configuration; output and errors together in `stdout`."""
        return subprocess.run(
            ["python", *self.command(*arguments, config=config)[1:]],  # the first one in the path
            cwd=self.directory,
            env=self.whole_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *arguments: str, config: dict[str, Any] | None = None) -> list[str]:
        """Return the command that runs Snakemake with this or another configuration."""
        path = self.directory / "experiment.yaml"
        path.write_text(yaml.safe_dump(self.config if config is None else config, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        return [*command, "--configfile", str(path), *self.options, *arguments]

    @property
    def whole_environment(self) -> dict[str, str]:
        """Return the environment that it is run in."""
        directories = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if self.warm or not self.environment:
            directories.insert(0, warm_path(**self.environment))
        return {**os.environ, "PATH": os.pathsep.join(directories), **self.environment}

    def planned(self, config: dict[str, Any] | None = None, *arguments: str) -> dict[str, int]:
        """Return the number of jobs by rule that a run would start."""
        result = self.snakemake("--dry-run", *arguments, config=config)
        assert result.returncode == 0, result.stdout
        table = re.search(r"Job stats:\n.*\n[- ]+\n((?:\S+ +\d+\n)+)", result.stdout)
        if table is None:
            assert "Nothing to be done" in result.stdout, result.stdout
            return {}
        counts = dict(line.split() for line in table.group(1).splitlines())
        return {rule: int(count) for rule, count in counts.items() if rule not in ("total", "all")}

    def changed(self, path: str, value: Any) -> dict[str, Any]:
        """Return the configuration with the value at a dotted path replaced or added."""
        config = copy.deepcopy(self.config)
        *parents, last = path.split(".")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
        return config


SUBMITIT = (
    *("--executor", "submitit", "--default-resources", "runtime=10", "mem_mb=100", "--submitit-cluster", "local"),
    *("--jobs", "20", "--latency-wait", "2", "--seconds-between-status-checks", "1"),
)
"""Options that run Snakemake's jobs through the cluster's executor, on this machine."""

VARIANTS = {
    "l1": {
        "sparsity": "l1",
        "dictionary_size": 48,
        "l1_coefficient": 0.5,
        "steps": 40,
        "batch_tokens": 256,
        "learning_rate": 0.005,
    },
    "batchtopk": {
        "sparsity": "batchtopk",
        "dictionary_size": 48,
        "k": 6,
        "steps": 40,
        "batch_tokens": 256,
        "learning_rate": 0.005,
    },
}

NURSERY = {
    "suites": {
        "small": {
            "source": {"kind": "nursery", "steps": [0, 4, 8], "hidden_size": 32, "blocks": 2, "heads": 2},
            "corpus": {"kind": "nursery", "train_tokens": 6400, "validation_tokens": 1280, "sequence_length": 32},
            "site": "residual.0",
            "tasks": {
                "agreement_simple": {"kind": "nursery", "pairs": 40},
                "agreement_across_prepositional_phrase": {"kind": "nursery", "pairs": 40},
            },
            "contrasts": {"agreement_simple": ["agreement_across_prepositional_phrase"]},
            "comparisons": {
                "pair": {"checkpoints": ["step0", "step8"]},
                "triplet": {"checkpoints": ["step0", "step4", "step8"], "variants": ["batchtopk"]},
            },
        }
    },
    "variants": VARIANTS,
    "attribution": {"bootstrap_samples": 50},
    "ablation": {"top_features": 3, "set_sizes": [1, 2], "random_sets": 2},
    "features": {"top_features": 3, "examples": 2},
}
