"""A plan as a page to read and as a document to work with."""

from collections.abc import Mapping, Sequence
from typing import Any

from chronocoder.plan.downloads import Priced
from chronocoder.plan.hardware import STARTUP_S, Hardware
from chronocoder.plan.plan import Plan
from chronocoder.plan.sizes import PREFIX_TOKENS
from chronocoder.terminal import shortened, table


def plan_text(plan: Plan) -> str:
    """Return a plan as tables."""
    parts = [
        "What a whole run costs; what is done already is not taken off.",
        table("Jobs by rule", RULE_HEADINGS, _rule_rows(plan)),
        *([table("Trainings, each", TRAINING_HEADINGS, _training_rows(plan))] if plan.trainings else []),
        *(
            [table("Effects of features on all tasks, each", EFFECTS_HEADINGS, _effects_rows(plan))]
            if plan.effects
            else []
        ),
        table("Bytes on disk", ("suite", "what", "number", "bytes"), _store_rows(plan)),
        *(
            f"{suite} chooses its comparisons: priced is all that its budget allows ({budget})."
            for suite, budget in plan.choices.items()
        ),
        _notes(plan.hardware),
    ]
    return "\n\n".join(parts) + "\n"


def downloads_text(downloads: Sequence[Priced]) -> str:
    """Return what an experiment takes over the network as a table, and the sum of what is to come."""
    if not downloads:
        return "Nothing comes over the network.\n"
    rows = [
        (
            one.download.paths[0],
            " + ".join(f"{place.repository} {place.revision}" for place in one.download.places),
            _to_come(one),
        )
        for one in downloads
    ]
    of_checkpoints = sum(one.size_bytes or 0 for one in downloads if one.download.kind in ("checkpoint", "tokenizer"))
    total = f"{shortened(of_checkpoints, 'B')} of checkpoints, and of datasets as much as the configuration asks for"
    here = all(one.there for one in downloads)
    last = "All of it is here; what has other settings now is fetched anew." if here else f"To fetch: {total}."
    return f"{table('Over the network', ('result', 'from', 'to fetch'), rows)}\n\n{last}\n"


def price_table(plans: Mapping[str, Plan]) -> str:
    """Return a Markdown table with a row for each experiment, by its name."""
    rows = [
        (
            name,
            str(plan.jobs),
            duration(plan.accelerator_hours),
            duration(max(rule.longest_hours for rule in plan.rules)),
            shortened(max(rule.device_bytes for rule in plan.rules), "B"),
            shortened(plan.stored_bytes, "B"),
        )
        for name, plan in plans.items()
    ]
    lines = (PRICE_HEADINGS, ("---",) * len(PRICE_HEADINGS), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values; bytes, FLOPs and hours as plain numbers."""
    hardware = plan.hardware
    return {
        "hardware": {
            "accelerator": hardware.accelerator,
            "peak_flops": hardware.peak._asdict(),
            "utilisation": hardware.utilisation,
            "read_bytes_per_s": hardware.read_bytes_per_s,
        },
        "jobs": plan.jobs,
        "flops": plan.flops,
        "accelerator_hours": plan.accelerator_hours,
        "stored_bytes": plan.stored_bytes,
        "rules": [rule._asdict() for rule in plan.rules],
        "trainings": [training._asdict() for training in plan.trainings],
        "effects": [effects._asdict() for effects in plan.effects],
        "stores": [stored._asdict() for stored in plan.stores],
        "choices": plan.choices,
    }


PRICE_HEADINGS = ("experiment", "jobs", "all jobs", "longest job", "device memory", "disk")
RULE_HEADINGS = ("rule", "jobs", "FLOP", "read and written", "longest job", "all jobs", "device memory", "main memory")
TRAINING_HEADINGS = (
    "comparison",
    "variant",
    "seeds",
    "processes",
    "parameters",
    "FLOP",
    "time",
    "device memory",
    "main memory",
    "saved state",
)
EFFECTS_HEADINGS = (
    "comparison",
    "variant",
    "active a token",
    "changing a text",
    "exact changes",
    "exact, for `auto`",
    "on",
    "estimator",
)


def duration(hours: float) -> str:
    """Return a time in seconds below two minutes, in minutes below two hours, and in hours; a dash for none."""
    if not hours:
        return "-"
    if hours < 2 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _to_come(download: Priced) -> str:
    if download.there:
        return "there, unless its settings changed"
    if download.problem:
        return "cannot be fetched"
    if download.size_bytes is None:
        return "size not stated"
    return f"{'at most ' if download.download.kind == 'dataset' else ''}{shortened(download.size_bytes, 'B')}"


def _rule_rows(plan: Plan) -> list[tuple[str, ...]]:
    rows = [
        (
            rule.rule,
            str(rule.jobs),
            shortened(rule.flops, "FLOP"),
            shortened(rule.disk_bytes, "B"),
            duration(rule.longest_hours),
            duration(rule.accelerator_hours),
            shortened(rule.device_bytes, "B"),
            shortened(rule.host_bytes, "B"),
        )
        for rule in plan.rules
    ]
    moved, device, host = (
        sum(rule.disk_bytes for rule in plan.rules),
        max(rule.device_bytes for rule in plan.rules),
        max(rule.host_bytes for rule in plan.rules),
    )
    totals = (shortened(plan.flops, "FLOP"), shortened(moved, "B"), "", duration(plan.accelerator_hours))
    return [*rows, ("total", str(plan.jobs), *totals, shortened(device, "B"), shortened(host, "B"))]


def _training_rows(plan: Plan) -> list[tuple[str, ...]]:
    return [
        (
            f"{training.suite}/{training.comparison}",
            training.variant,
            str(training.seeds),
            str(training.processes),
            shortened(training.parameters, ""),
            shortened(training.flops, "FLOP"),
            duration(training.hours),
            shortened(training.device_bytes, "B"),
            shortened(training.host_bytes, "B"),
            shortened(training.state_bytes, "B"),
        )
        for training in plan.trainings
    ]


def _effects_rows(plan: Plan) -> list[tuple[str, ...]]:
    return [
        (
            f"{effects.suite}/{effects.comparison}",
            effects.variant,
            f"{effects.l0:.0f}",
            f"{effects.changed:.0f}",
            shortened(effects.rows, ""),
            duration(effects.exact_hours),
            effects.accelerator,
            effects.estimator,
        )
        for effects in plan.effects
    ]


def _store_rows(plan: Plan) -> list[tuple[str, ...]]:
    rows = [(entry.suite, entry.kind, str(entry.number), shortened(entry.size_bytes, "B")) for entry in plan.stores]
    return [*rows, ("total", "", "", shortened(plan.stored_bytes, "B"))]


def _notes(hardware: Hardware) -> str:
    low = "no bfloat16" if hardware.peak.bfloat16 is None else f"{shortened(hardware.peak.bfloat16, 'FLOP/s')} bfloat16"
    peak = f"{shortened(hardware.peak.float32, 'FLOP/s')} float32, {low}"
    rate = shortened(hardware.read_bytes_per_s, "B/s")
    return (
        f"Times are an estimate for {hardware.accelerator} ({peak}):\n"
        f"{hardware.utilisation:.0%} of that, or what moving the bytes at {rate} takes, whichever is longer, and"
        f" {STARTUP_S:g} s to start a job.\n"
        "Tokenising, resampling and matching features are timed on one core of a CPU.\n"
        "Active latents, and the metrics and lengths of tasks, are measured where there are results. Else latents are"
        " what the variant\nasks for, or 1/32 of the dictionary and at most 100; a prefix or sentence has"
        f" {PREFIX_TOKENS} tokens; and where the metric\nis `auto`, pairs of sentences are scored by `sentence`, which"
        " costs most, others by `next_token`.\n"
        "`estimator: auto` decides by the latents that the variant asks for, on each task as if all pairs of the suite"
        " were like its own.\n"
        "Queues are not in them, nor what is bound by memory: sparse variants take longer.\n"
        "Memory is of one process, the largest of the rule; that of CUDA itself is not in it.\n"
        "B: bytes; k, M, G: powers of 1000."
    )
