"""How long the jobs behind a report took, from Snakemake's benchmark files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from chronocoder.errors import StoreError

SECONDS, MEMORY_MB = "s", "max_rss"


class Timing(NamedTuple):
    """What the jobs of one rule took.

    Attributes:
        rule: name of the rule.
        jobs: how many there were.
        total_s: time of all of them, in seconds.
        longest_s: time of the longest, in seconds.
        memory_mb: most resident memory of any, in MB; NaN where no job was long enough to measure it.
    """

    rule: str
    jobs: int
    total_s: float
    longest_s: float
    memory_mb: float


def read_timings(directory: Path) -> list[Timing]:
    """Return what the jobs of each rule took, the longest in all first; none where there are no files.

    Args:
        directory: holds `<rule>.tsv`, or `<rule>/<job>.tsv`.

    Raises:
        StoreError: a file is no benchmark.
    """
    jobs = pd.DataFrame(_jobs(directory), columns=["rule", SECONDS, MEMORY_MB])
    found = [
        Timing(str(rule), len(of), of[SECONDS].sum(), of[SECONDS].max(), of[MEMORY_MB].max())
        for rule, of in jobs.groupby("rule")
    ]
    return sorted(found, key=lambda timing: -timing.total_s)


def duration(seconds: float) -> str:
    """Return a time in words: seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _jobs(directory: Path) -> Iterator[tuple[str, float, float]]:
    for path in sorted(directory.rglob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        if not {SECONDS, MEMORY_MB} <= set(table.columns):
            raise StoreError(f"{path}: no benchmark of Snakemake (columns {SECONDS}, {MEMORY_MB}); delete it")
        rule = path.relative_to(directory).parts[0].removesuffix(".tsv")
        for column in (SECONDS, MEMORY_MB):
            table[column] = pd.to_numeric(table[column], errors="coerce")
        yield from ((rule, seconds, memory) for seconds, memory in zip(table[SECONDS], table[MEMORY_MB], strict=True))
