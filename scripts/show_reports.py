"""Say where the reports of an experiment are."""

import argparse
import sys
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.config import load_experiment
from chronocoder.layout import Layout


def main() -> None:
    """Read the configuration, write one line a suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the configuration")
    experiment = load_experiment(parser.parse_args().config)
    for suite in [name for name, settings in experiment.suites.items() if settings.examined]:
        report = Path(Layout(experiment.results).report.format(suite=suite)).resolve()
        sys.stdout.write(f"Report of {suite}: {report}\n")


if __name__ == "__main__":
    run_script(main)
