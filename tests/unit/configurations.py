"""The default configuration and changed copies of it."""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEFAULT: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
del DEFAULT["suites"]["nursery"]["taskspace"]  # which names tasks and comparisons that tests take away
SPACE = {"checkpoints": ["step64", "step320"]}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the default configuration with the value at a dotted path replaced."""
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


def with_twin(pair: dict[str, Any] | None = None, **source: Any) -> dict[str, Any]:
    """Return the default configuration with a second suite, with another seed, and a comparison of both."""
    config = copy.deepcopy(DEFAULT)
    twin = {**copy.deepcopy(config["suites"]["nursery"]), "comparisons": {}, "contrasts": {}}
    twin["tasks"] = {"agreement_simple": {"kind": "nursery"}}
    twin["source"] |= {"seed": 1, "tokenizer_seed": 0, **source}
    config["suites"]["twin"] = twin
    config["suites"]["nursery"]["comparisons"]["twins"] = pair or {"checkpoints": ["step320", "step320@twin"]}
    return config
