"""Write the report of a suite: a directory of pages that work without a network."""

import argparse
import json
from pathlib import Path

import yaml

from chronocoder.command_line import run_script
from chronocoder.report.annotations import read_annotations, warn_of_unknown
from chronocoder.report.inputs import (
    UNREAD,
    ReportInputs,
    examined_comparisons,
    match_runs,
    match_seeds,
    read_contrasts,
)
from chronocoder.report.pages import write_report
from chronocoder.report.timings import read_timings
from chronocoder.stores import load_store, names

KINDS = ("trainings", "evaluations", "relies", "features", "ablations")
OPTIONAL = {
    "seed-matches": "stores of comparisons between seeds",
    "consolidations": "stores of comparisons between languages",
    "successors": "stores of matches with the comparisons that follow",
    "controls": "stores of effects of the controls",
    "control-evaluations": "stores of their evaluations, same order",
    "baselines": "stores of comparisons with dictionaries of single checkpoints",
    "choice": "store of the curves that comparisons were chosen from",
    "scan": "store of a scan of all checkpoints",
    "transfer": "store of the transfer between tasks",
    "gradients": "store of the similarity of tasks' gradients",
    "space": "store of the task space",
    "bridges": "stores of transfer beside the features that tasks share",
}


def main() -> None:
    """Read the arguments, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--behaviour", type=Path, required=True, help="store of the suite's accuracies")
    parser.add_argument("--similarity", type=Path, required=True, help="store of its checkpoints' similarities")
    parser.add_argument("--comparisons", type=Path, required=True, help="YAML file of its comparisons")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, nargs="*", required=True, help=f"stores of all runs: {kind}")
    for flag, text in OPTIONAL.items():
        parser.add_argument(f"--{flag}", type=Path, nargs="*", default=[], help=f"{text}, if there are any")
    parser.add_argument("--contrasts", required=True, help="tasks that a surface rule tells apart, as JSON")
    parser.add_argument(
        "--annotations", type=Path, nargs="*", default=[], help="CSV file of annotations, if there is one"
    )
    parser.add_argument("--configs", type=Path, nargs="*", default=[], help="files of the configuration, to be shown")
    parser.add_argument("--benchmarks", type=Path, help="directory of Snakemake's benchmarks of the suite's jobs")
    parser.add_argument("--processes", type=int, default=1, help="that share out the pages")
    parser.add_argument("--output", type=Path, required=True, help="first page to write, in a directory of its own")
    arguments = parser.parse_args()
    behaviour = load_store(arguments.behaviour)
    comparisons = yaml.safe_load(arguments.comparisons.read_text(encoding="utf-8"))
    stores = {kind: [load_store(path, UNREAD) for path in getattr(arguments, kind)] for kind in KINDS}
    runs = match_runs(**stores)
    others = {
        flag: [load_store(path, UNREAD) for path in getattr(arguments, flag.replace("-", "_"))] for flag in OPTIONAL
    }
    inputs = ReportInputs(
        suite=arguments.suite,
        behaviour=behaviour,
        similarity=load_store(arguments.similarity),
        comparisons=examined_comparisons(comparisons),
        runs=runs,
        contrasts=read_contrasts(json.loads(arguments.contrasts), names(behaviour, "task")),
        seed_matches=match_seeds(others["seed-matches"], runs),
        example_path=str(next(iter(arguments.relies), "")),
        consolidations=others["consolidations"],
        successors=others["successors"],
        controls=others["controls"],
        control_evaluations=others["control-evaluations"],
        baselines=others["baselines"],
        choice=next(iter(others["choice"]), None),
        reasons={name: comparison.get("why", "") for name, comparison in comparisons.items()},
        scan=next(iter(others["scan"]), None),
        transfer=next(iter(others["transfer"]), None),
        gradients=next(iter(others["gradients"]), None),
        space=next(iter(others["space"]), None),
        bridges=others["bridges"],
        transfer_path=str(next(iter(arguments.transfer), "")),
        annotations=[one for path in arguments.annotations for one in read_annotations(path)],
        configs={path.name: path.read_text(encoding="utf-8") for path in arguments.configs},
        timings=read_timings(arguments.benchmarks) if arguments.benchmarks else [],
    )
    warn_of_unknown(inputs.annotations, inputs.suite, {run.key: run.relie.sizes["feature"] for run in runs})
    write_report(inputs, arguments.output.parent, arguments.processes)


if __name__ == "__main__":
    run_script(main)
