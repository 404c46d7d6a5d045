"""Fetch what an experiment takes from the hub, after saying how many bytes; all other jobs need no network."""

import argparse
import subprocess
import sys
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.config import load_experiment
from chronocoder.errors import ConfigError
from chronocoder.plan.downloads import downloads_of, priced
from chronocoder.plan.text import downloads_text
from chronocoder.suites.inputs import check_inputs

SNAKEFILE = Path(__file__).resolve().parents[1] / "Snakefile"


def main() -> None:
    """Read the configuration, say what there is to fetch, fetch it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the configuration")
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to fetch")
    parser.add_argument("--cores", default="4", help="downloads at once (default: 4)")
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.config)
    check_inputs(experiment)
    downloads = priced(experiment, downloads_of(experiment))
    sys.stdout.write(downloads_text(downloads))
    sys.stdout.flush()
    if problems := dict.fromkeys(download.problem for download in downloads if download.problem):
        raise ConfigError("\n".join(problems))
    if arguments.dry_run or not downloads:
        return
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--configfile", str(arguments.config)]
    options = ["--cores", arguments.cores, "--rerun-incomplete", "--keep-going", "--show-failed-logs"]
    sys.exit(subprocess.run([*command, *options, "fetch"]).returncode)


if __name__ == "__main__":
    run_script(main)
