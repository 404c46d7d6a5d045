"""Hold the transfer between tasks against the features of a crosscoder, and remove those that tasks share."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chronocoder.command_line import (
    add_checkpoints,
    add_flags,
    add_loading,
    checkpoints_from,
    from_flags,
    loading_from,
    run_script,
)
from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import load_store, provenance, write_store

if TYPE_CHECKING:
    from chronocoder.taskspace.bridge import Tunable


def main() -> None:
    """Read the arguments, tune and measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--relie", type=Path, required=True, help="store of its effects on all tasks")
    parser.add_argument("--transfer", type=Path, required=True, help="store of the transfer between tasks")
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tasks of the task space")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, TaskSpaceSettings)
    arguments = parser.parse_args()
    given, settings, loading = checkpoints_from(arguments), from_flags(arguments, TaskSpaceSettings), loading_from(arguments)
