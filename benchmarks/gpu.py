"""Measure, on a machine with one GPU, no network and no Snakemake, all that a GPU could break or prove.

Each part runs in a process of its own, so that one that fails, for instance for want of Triton, stops no other. A table
in Markdown goes to standard output; the exit status is 1 if any part failed. A target that is missed is no failure.

    PYTHONPATH=src python benchmarks/gpu.py --output gpu.json            # under eight minutes
    PYTHONPATH=src python benchmarks/gpu.py --reduced                    # on a CPU: shows only that everything runs

Beside torch, transformers, accelerate, triton, xarray and numpy it needs a few packages. Where there is a network:

    python benchmarks/gpu.py --wheels wheels                             # downloads and lists them
    pip install --no-index --find-links wheels wheels/*.whl              # on the machine with the GPU
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from on_gpu.measured import REDUCED, Budget, Row, Setting
from on_gpu.wheels import download, requirements

PARTS = {
    "machine": 0.5,
    "checks": 2.0,
    "steps": 1.5,
    "sparse_steps": 1.0,
    "loaders": 2.0,
    "effects": 3.0,
    "tunings": 0.5,
}
"""Modules of `on_gpu`, and how the time is shared out among them."""
ROUNDS_SHARE = 0.7
"""Of a part's time, after which it begins no further round; the rest is for what a round and the data take."""
PATIENCE = 2
"""Times its share after which a part is ended."""
COLUMNS = ("part", "what", "measured", "against", "ratio", "target")


@dataclass
class Part:
    """What became of a part.

    Attributes:
        name: of the part.
        rows: measured, also before it failed.
        error: why it failed; empty if it did not.
        seconds: that it took.
    """

    name: str
    rows: list[Row]
    error: str = ""
    seconds: float = 0.0


def main() -> int:
    """Measure the parts and write what they found; return the exit status."""
    arguments = _parser().parse_args()
    if arguments.wheels:
        sys.stdout.write("\n".join(requirements()) + "\n")
        sys.stdout.flush()
        download(arguments.wheels, arguments.python)
        return 0
    setting = REDUCED if arguments.reduced else Setting()
    context = multiprocessing.get_context("forkserver")
    # What is imported before the fork may ask for GPUs, and then no forked process could use one.
    context.set_forkserver_preload(["chronocoder.crosscoder.training", "transformers"] if arguments.reduced else [])
    parts = measure_parts(context, arguments.parts, setting, 60 * arguments.minutes)
    return write_results(parts, setting, arguments.output)


def write_results(parts: Sequence[Part], setting: Setting, output: Path | None) -> int:
    """Write the table, and the JSON file if it is wanted; return the exit status."""
    sys.stdout.write(f"{table(parts)}\n")
    if output:
        documents = [asdict(part) | {"rows": [row._asdict() for row in part.rows]} for part in parts]
        document = {"setting": setting._asdict(), "parts": documents}
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(any(part.error for part in parts))


def measure_parts(context: ForkServerContext, names: Sequence[str], setting: Setting, seconds: float) -> list[Part]:
    """Measure parts one after the other; what one leaves of its time the others share."""
    budget, found = Budget.of(seconds), []
    for place, name in enumerate(names):
        share = PARTS[name] / sum(PARTS[other] for other in names[place:])
        found.append(measure_part(context, name, setting, share * budget.left, budget.left))
    return found


def measure_part(context: ForkServerContext, name: str, setting: Setting, share: float, left: float) -> Part:
    """Measure a part in a process of its own, which is ended where it takes far longer than its share.

    Args:
        context: that makes the process.
        name: of the part.
        setting: what to measure.
        share: seconds that the part should take.
        left: seconds that are left for all parts.
    """
    receiver, sender = context.Pipe(duplex=False)
    part, limit, begin = Part(name, []), Budget.of(min(left, PATIENCE * share)), time.monotonic()
    process = context.Process(target=send_rows, args=(name, setting, ROUNDS_SHARE * share, sender))
    process.start()
    sender.close()
    try:
        while not part.error:
            if receiver.poll(limit.left):
                message = receiver.recv()
                part.rows += [message] if isinstance(message, Row) else []
                part.error = message if isinstance(message, str) else ""
            else:
                part.error = f"ended after {time.monotonic() - begin:.0f} s: no time was left"
                process.kill()
    except EOFError:  # it has no more to say
        process.join()
        part.error = f"its process ended with status {process.exitcode}" if process.exitcode else ""
    process.join()
    part.seconds = time.monotonic() - begin
    return part


def send_rows(name: str, setting: Setting, seconds: float, sender: Connection) -> None:
    """Measure a part, and send its rows and, if it fails, why."""
    try:
        for row in import_module(f"on_gpu.{name}").measure(setting, Budget.of(seconds)):
            sender.send(row)
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")


def table(parts: Sequence[Part]) -> str:
    """Return all rows, and the errors, as a table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for part in parts:
        lines += [_cells(part.name, row) for row in part.rows]
        outcome = f"**failed**: {' '.join(part.error.split())}" if part.error else "done"
        lines.append([part.name, outcome, f"{part.seconds:.1f} s", "", "", ""])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cells(part: str, row: Row) -> list[str]:
    value = "" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    bound = "" if row.target is None else f"{'at most' if row.at_most else 'at least'} {row.target:g}"
    return [part, row.what, value, row.against, ratio, f"{bound} (**missed**)" if row.missed else bound]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing is measured")
    parser.add_argument("--reduced", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="download what is needed; measure nothing")
    running = "{}.{}".format(*sys.version_info)
    parser.add_argument("--python", default=running, metavar="VERSION", help="that they are for; default %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
