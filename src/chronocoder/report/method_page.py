"""The page on how the numbers were made, where they are, and how to cite them."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.report.citation import citations, method_text
from chronocoder.report.inputs import ReportInputs, key_of
from chronocoder.report.site import Site
from chronocoder.report.timings import Timing, duration
from chronocoder.stores import names

HASH_LETTERS, MOST_COMMITS = 12, 4


class Origin(NamedTuple):
    """Where the numbers of one store come from.

    Attributes:
        name: of the store, in words.
        link: from the page to the store; empty where it is not known.
        seed: of the step that wrote it, if it has one.
        commits: of the checkpoints, shortened; or their number where there are many.
        digest: of its settings.
        created: when it was written.
    """

    name: str
    link: str
    seed: str
    commits: str
    digest: str
    created: str


def method_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Return what the page shows."""
    stores = all_stores(inputs)
    return {
        "paragraphs": method_text(inputs),
        "citations": citations(inputs),
        "checkpoints": checkpoint_rows(inputs.behaviour),
        "origins": [_origin(name, store, site.directory) for name, store in stores.items()],
        "settings": settings_texts(stores),
        "first_uses": first_uses(stores),
        "packages": package_versions(stores),
        "timings": [_timing_row(timing) for timing in inputs.timings],
        "total_time": duration(sum(timing.total_s for timing in inputs.timings)),
        "intervention": inputs.runs[0].intervention if inputs.runs else "",
        "random_level": inputs.runs[0].random_level if inputs.runs else "",
        "tuning": names(inputs.transfer, "tuning")[0] if inputs.transfer is not None else "",
        "source": names(inputs.transfer, "source")[0] if inputs.transfer is not None else "",
    }


def all_stores(inputs: ReportInputs) -> dict[str, xr.Dataset]:
    """Return every store that the report is made of, by a name in words."""
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {name: of for name, of in (("choice", inputs.choice), ("scan", inputs.scan)) if of is not None}
    stores |= {f"task space: {name}": store for name, store in inputs.space_stores.items()}
    for run in inputs.runs:
        stores |= {f"{run.key.label}: {name}": dataset for name, dataset in run.stores.items()}
    of_others = {
        "control": inputs.controls,
        "evaluation": inputs.control_evaluations,
        "baseline": inputs.baselines,
        "languages": inputs.consolidations,
        "transfer and features": inputs.bridges,
    }
    for kind, others in of_others.items():
        stores |= {f"{key_of(dataset).label}: {kind}": dataset for dataset in others}
    return stores | {
        f"{matches.attrs['comparison']} · {matches.attrs['variant']}: seeds": matches for matches in inputs.seed_matches
    }


def checkpoint_rows(behaviour: xr.Dataset) -> list[tuple[str, int, str]]:
    """Return name, tokens seen and commit of each checkpoint; no commit where the store does not tell."""
    revisions, tokens = names(behaviour, "checkpoint"), behaviour["tokens_seen"].values.tolist()
    commits = behaviour.attrs.get("commits") or [""] * len(revisions)
    return list(zip(revisions, tokens, commits, strict=True))


def settings_texts(stores: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the distinct settings that stores were written with, a line each, by their digest."""
    return {
        str(store.attrs["config_digest"]): json.dumps(json.loads(store.attrs["settings"] or "{}"), indent=1)
        for store in stores.values()
    }


def first_uses(stores: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the first store that each settings were used for, by their digest."""
    uses: dict[str, str] = {}
    for name, store in stores.items():
        uses.setdefault(str(store.attrs["config_digest"]), name)
    return uses


def package_versions(stores: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the distinct sets of package versions that the stores were written with."""
    texts = (
        ", ".join(f"{name} {version}" for name, version in store.attrs["package_versions"].items())
        for store in stores.values()
    )
    return list(dict.fromkeys(texts))


def _origin(name: str, store: xr.Dataset, directory: Path) -> Origin:
    attributes = store.attrs
    commits = [str(commit).removeprefix("sha256:")[:HASH_LETTERS] for commit in attributes.get("commits", [])]
    seeds = attributes.get("seeds", [attributes["seed"]] if "seed" in attributes else [])
    return Origin(
        name,
        _link(store, directory),
        ", ".join(map(str, seeds)),
        ", ".join(commits) if len(commits) <= MOST_COMMITS else f"of all {len(commits)} checkpoints",
        str(attributes["config_digest"]),
        str(attributes["created"]),
    )


def _link(store: xr.Dataset, directory: Path) -> str:
    """Return the path from a page to a store; empty where the store was not read from a file."""
    source = store.encoding.get("source")
    return Path(os.path.relpath(source, directory.resolve())).as_posix() if source else ""


def _timing_row(timing: Timing) -> list[str]:
    memory = f"{timing.memory_mb:.0f} MB" if math.isfinite(timing.memory_mb) else "–"
    return [timing.rule, str(timing.jobs), duration(timing.total_s), duration(timing.longest_s), memory]
