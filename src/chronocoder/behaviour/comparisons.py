"""What the crosscoders are trained on, and why. Imports nothing heavy: the DAG is built with it."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from chronocoder.config import ChoiceSettings, Comparison
from chronocoder.errors import ConfigError

CHOSEN = "from accuracy curves"
"""How a chosen comparison came about, beside those given in the configuration."""


def given_comparisons(comparisons: Mapping[str, Comparison], site: str) -> dict[str, dict[str, object]]:
    """Return the comparisons that a configuration gives, by name, as plain values.

    Args:
        comparisons: by name.
        site: the suite's, for comparisons that have none of their own.
    """
    return {
        name: {
            "checkpoints": comparison.checkpoints,
            "control": comparison.control,
            "site": comparison.site or site,
            "chosen": "given in the configuration",
            "why": comparison.why,
        }
        for name, comparison in comparisons.items()
    }


def chosen_comparisons(settings: ChoiceSettings, path: Path) -> dict[str, Comparison]:
    """Return the comparisons in a `comparisons.yaml` that were chosen, by name.

    Args:
        settings: what they were chosen by.
        path: the file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = {name: list(map(str, entry["checkpoints"])) for name, entry in document.items()}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no readable comparisons ({error}); delete it and run its target again") from error
    return {name: settings.comparison(found[name]) for name in settings.names if name in found}
