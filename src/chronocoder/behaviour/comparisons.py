"""What the crosscoders are trained on, and why."""

from collections.abc import Mapping

from chronocoder.config import Comparison


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
