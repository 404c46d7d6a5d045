"""Say where the reports are, and how many classes of a checkpoint compared with itself are changes."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.config import Experiment, load_experiment
from chronocoder.layout import Layout
from chronocoder.report.summary import IDENTITY, identity_sentence
from chronocoder.stores import load_store


def main() -> None:
    """Read the configuration, write two lines a suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the configuration")
    experiment = load_experiment(parser.parse_args().config)
    layout = Layout(experiment.results)
    for suite in [name for name, settings in experiment.suites.items() if settings.reported]:
        controls = [load_store(path) for path in _identity_stores(experiment, suite, layout)]
        report = Path(layout.report.format(suite=suite)).resolve()
        sys.stdout.write(f"{identity_sentence(controls)}\nReport of {suite}: {report}\n")


def _identity_stores(experiment: Experiment, suite: str, layout: Layout) -> Iterator[Path]:
    for name, comparison in experiment.suites[suite].comparisons.items():
        if comparison.control == IDENTITY:
            for variant in experiment.variants_of(suite, name):
                for seed in experiment.seeds:
                    run = {"suite": suite, "comparison": name, "variant": variant, "seed": seed}
                    yield Path(layout.relie.format(**run))


if __name__ == "__main__":
    run_script(main)
