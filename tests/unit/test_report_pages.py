"""The pages of a report on crosscoders and method, and the directory they are written to."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
import yaml
from report_stores import (
    REVISIONS,
    evaluation_store,
    make_run,
    seed_store,
    six_features,
    toy_inputs,
    with_classes,
    with_control,
    with_facts,
    with_languages,
)
from taskspace_stores import with_task_space

from chronocoder.errors import StoreError
from chronocoder.figures.classes import class_counts
from chronocoder.report.citation import citations, method_text
from chronocoder.report.crosscoders_page import crosscoders_page, quality_rows
from chronocoder.report.data import CLASSES
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.method_page import all_stores, checkpoint_rows, method_page
from chronocoder.report.overview import count_rows, glance, key_numbers, overview
from chronocoder.report.pages import Page, write_report
from chronocoder.report.site import Site
from chronocoder.report.stability import seed_table
from chronocoder.report.telling import telling_tasks
from chronocoder.report.timings import Timing, duration, read_timings
from chronocoder.stores import load_store, write_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_report.py"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a report may show."""
    inputs = with_control(toy_inputs(six_features()))
    directory = tmp_path_factory.mktemp("whole") / "report"
    write_report(with_task_space(with_languages(inputs, {"agreement": [False, True]})), directory)
    return directory


def without_crosscoders(inputs: ReportInputs) -> ReportInputs:
    """As of a scan alone, or where nothing was chosen."""
    return replace(inputs, runs=[], seed_matches=[], comparisons={})


def pages_in(directory: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in directory.glob("*.html")}


def missing_links(directory: Path) -> set[str]:
    """Links to what is not there."""
    links = {link for text in pages_in(directory).values() for link in re.findall(r'(?:href|src)="([^"#]+)', text)}
    return {link for link in links if not link.startswith("data:") and not (directory / link).exists()}


def test_a_report_links_only_to_what_it_holds(report: Path) -> None:
    pages = pages_in(report)
    linked = {"index", "ability", "crosscoders", "features", "tasks", "taskspace", "method"}
    assert set(pages) == {*linked, "feature", "run-pair-l1-seed0"}
    for text in pages.values():
        assert all(f'href="{name}.html"' in text for name in (*linked, "run-pair-l1-seed0"))
        assert "script-src 'self'" in text and "unsafe-inline" not in text
    assert not missing_links(report)
    data = {path.name for path in (report / "data" / "pair-l1-seed0").iterdir()}
    assert data == {"run.js", "table-0.js", "table-1.js", "features-0.js"}


def test_a_report_takes_the_place_of_an_earlier_one_whole(inputs: ReportInputs, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.html").touch()
    ability = without_crosscoders(inputs)
    with pytest.raises(KeyError):
        write_report(replace(ability, similarity=xr.Dataset()), tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["old.html"]
    write_report(ability, tmp_path / "report")
    assert "old" not in pages_in(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_takes_the_place_of_nothing_else(inputs: ReportInputs, tmp_path: Path) -> None:
    for name in ("index.html", ".DS_Store", "thesis.tex", "data.csv"):
        (tmp_path / name).touch()
    with pytest.raises(
        StoreError, match=r"holds data\.csv, which is no part of a report and would be deleted.* of its own"
    ):
        write_report(without_crosscoders(inputs), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_two_reports_of_the_same_stores_are_the_same(inputs: ReportInputs, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_report(without_crosscoders(inputs), tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


def test_report_without_crosscoders_has_no_page_about_them(inputs: ReportInputs, tmp_path: Path) -> None:
    write_report(without_crosscoders(inputs), tmp_path / "report")
    pages = pages_in(tmp_path / "report")
    assert set(pages) == {"index", "ability", "method"}
    assert "there are no crosscoders here" in pages["index"] and "crosscoders</dt>" not in pages["index"]
    assert not missing_links(tmp_path / "report")


def test_key_numbers(inputs: ReportInputs) -> None:
    numbers = {number.label: number.value for number in key_numbers(inputs)}
    assert numbers["tokens seen"] == "0 – 50 k"
    assert numbers["crosscoders"] == "1"


def test_overview_tells_since_when_and_by_which_features(inputs: ReportInputs) -> None:
    near, far = telling_tasks(inputs, inputs.runs[0])
    assert (near.name, near.since, near.accuracy, near.warned) == ("near", "step10", "1.00 (0.95 to 1.00)", False)
    assert [of.feature for of in near.features] == [2] and [of.feature for of in far.features] == [1]
    assert far.since == "step20"
    assert far.features[0] == (1, "", "+2.00 (+1.90 to +2.10)", "maintained")
    assert [task.features for task in telling_tasks(inputs, None)] == [[], []]


def test_overview_counts_classes_beside_chance(inputs: ReportInputs, tmp_path: Path) -> None:
    rows = count_rows(class_counts(inputs.runs[0].relie, "published"))
    assert list(rows) == ["near", "far"]
    assert rows["near"] == [(3, "0.9", True), (2, "0.0", False)]
    context = overview(inputs, {}, Site(tmp_path))
    assert context["classes"] == ["emerged", "maintained", "discontinued"]
    assert (tmp_path / "figures" / "overview" / "classes-pair-l1-seed0.svg").exists()
    assert glance(inputs.runs[0]).cells == ["0.90", "0.95", "12.0", "25\u00a0%"]


@pytest.mark.parametrize("recovered", [0.95, 1.01])
def test_what_is_recovered_above_one_is_marked(inputs: ReportInputs, recovered: float, tmp_path: Path) -> None:
    run = inputs.runs[0]
    evaluation = with_facts(evaluation_store(run.checkpoints, recovered=recovered), **run.key._asdict())
    rows = quality_rows(evaluation)
    change = f"{'−0.0100' if recovered > 1 else '+0.0500'} ± 0.0025"
    assert rows[0] == ("step10", recovered > 1, ["0.900", "0.800", f"{recovered:.3f}", "0.850", "0.750", change])
    site = Site(tmp_path)
    context = crosscoders_page(replace(inputs, runs=[replace(run, evaluation=evaluation)]), site)
    site.page("crosscoders", suite="toy", inputs=inputs, pages=[], runs=[], **context)
    page = pages_in(tmp_path)["crosscoders"]
    assert ("▲ 1.010" in page) == ("More than everything is recovered" in page) == (recovered > 1)


def test_crosscoders_are_shown_with_seeds_and_baselines(inputs: ReportInputs, tmp_path: Path) -> None:
    context = crosscoders_page(with_control(inputs), Site(tmp_path))
    assert context["training"].first == ("Explained variance of the batch",)
    assert [table.label for table, _ in context["seeds"]] == ["pair · l1 · seed 0 against 1, 2"]
    assert [table.label for table in context["baseline_tables"]] == ["pair · l1 · seed 0"]
    written = pd.read_csv(tmp_path / "figures" / "crosscoders" / "seeds-pair-l1.csv")
    assert written["indirect_effect_spearman"].tolist() == pytest.approx([0.5, 0.5, 0.8, 0.8])


def test_seed_table_averages_over_seeds_and_checkpoints() -> None:
    table = seed_table(with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2]))
    assert table.label == "pair · l1 · seed 0 against 1, 2"
    assert list(table.tasks) == ["near", "far"]
    assert len(table.tasks["near"]) == 2
    assert table.tasks["near"][1] == ["0.70", "60", "0.80", "0.12", "0.75", "–", "40"]


def test_method_can_be_quoted_with_the_numbers_of_the_suite(inputs: ReportInputs) -> None:
    ability, training, effects, space = method_text(with_task_space(inputs))
    assert "3 checkpoints of toy, from 0 to 50 k tokens" in ability and "(2 tasks, 18 pairs in all" in ability
    assert "pair (step10, step20) – crosscoders with 6 latents" in training
    assert "explain 0.90 of the variance" in training and "recover 0.95" in training
    assert "95\u00a0% bootstrap intervals" in effects and "set to zero at one checkpoint" in effects
    assert "are tuned" in space or "were tuned" in space
    assert len(method_text(replace(inputs, runs=[], comparisons={}))) == 1


def test_method_names_no_control_that_was_not_measured(inputs: ReportInputs) -> None:
    whole = with_task_space(inputs)
    *_, effects, space = method_text(whole)
    assert "comparable random directions stay below" in effects and "random directions." in effects
    assert space.endswith("Tuning with right and wrong swapped at random is the control.")
    bases = dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6])
    alone = make_run(with_classes(inputs.runs[0].relie, bases, controls=()))
    assert whole.transfer is not None
    plain = whole.transfer.isel(tuning=(whole.transfer["objective"] != "swapped").values)
    *_, effects, space = method_text(replace(whole, runs=[alone], transfer=plain))
    assert "random directions" not in effects and "swapped" not in space


def test_a_page_whose_process_is_killed_stops_the_report(
    inputs: ReportInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Page("index", "Overview", lambda _: os.kill(os.getpid(), signal.SIGKILL) or {})
    monkeypatch.setattr("chronocoder.report.pages.pages_of", lambda _: [killed])
    with pytest.raises(BrokenProcessPool):
        write_report(without_crosscoders(inputs), tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_whom_to_cite_depends_on_what_is_shown(inputs: ReportInputs) -> None:
    entries = citations(with_task_space(inputs))
    assert [entry.partition("{")[0] for entry in entries.values()] == ["@software", "@article", "@article"]
    assert all(entry.count("{") == entry.count("}") for entry in entries.values())
    assert "2509.05291" in list(citations(inputs).values())[-1]
    assert list(citations(replace(inputs, runs=[]))) == ["This software"]


def test_origins_of_all_stores_are_told_and_linked(inputs: ReportInputs, tmp_path: Path) -> None:
    write_store(
        inputs.behaviour, tmp_path / "behaviour.zarr", inputs.behaviour.attrs | {"commits": ["sha256:" + "ab" * 16] * 3}
    )
    stored = replace(with_control(inputs), behaviour=load_store(tmp_path / "behaviour.zarr"))
    context = method_page(stored, Site(tmp_path / "report"))
    behaviour, *others = context["origins"]
    assert behaviour.link == "../behaviour.zarr" and behaviour.commits == ", ".join(["ab" * 6] * 3)
    assert len(context["origins"]) == len(all_stores(stored)) and all(not origin.link for origin in others)
    assert {origin.digest for origin in context["origins"]} == set(context["settings"])
    assert "pair · l1 · seed 0: ablation, near" in all_stores(stored)
    assert set(context["first_uses"]) == set(context["settings"]) and "behaviour" in context["first_uses"].values()
    assert json.loads(next(iter(context["settings"].values())))["confidence"] == 0.95


def test_checkpoints_stand_with_their_commits() -> None:
    behaviour = toy_inputs(six_features()).behaviour
    assert checkpoint_rows(behaviour) == [("step0", 0, ""), ("step10", 1_000, ""), ("step20", 50_000, "")]
    assert checkpoint_rows(behaviour.assign_attrs(commits=["a", "b", "c"]))[-1] == ("step20", 50_000, "c")


HEAD = "s\th:m:s\tmax_rss\tmean_load\n"


def test_timings_are_summed_by_rule(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "one.tsv").write_text(f"{HEAD}60\t0:01:00\t200\t1\n")
    (tmp_path / "train" / "two.tsv").write_text(f"{HEAD}30\t0:00:30\t300\t1\n")
    (tmp_path / "show.tsv").write_text(f"{HEAD}0.5\t0:00:00\tNA\tNA\n")
    train, show = read_timings(tmp_path)
    assert train == Timing("train", 2, 90.0, 60.0, 300.0)
    assert show[:4] == ("show", 1, 0.5, 0.5) and show.memory_mb != show.memory_mb
    assert read_timings(tmp_path / "nowhere") == []
    assert [duration(seconds) for seconds in (0.5, 90, 600, 9000)] == ["0.5 s", "90 s", "10 min", "2.5 h"]
    assert duration(4_443_200) == "1,234.2 h"


def test_what_is_no_benchmark_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(StoreError, match=r"other\.tsv: no benchmark of Snakemake \(columns s, max_rss\); delete it"):
        read_timings(tmp_path)


def test_script_writes_the_report_whole_and_without_torch(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {"trainings": run.training, "evaluations": run.evaluation, "relies": run.relie, "features": run.features}
    stores |= {"seed-matches": inputs.seed_matches[0]}
    stores |= {"consolidations": with_languages(inputs, {"agreement": [True, True]}).consolidations[0]}
    facts = {"comparison": "same", "variant": "l1", "seed": 0, "control": "identity"}
    stores |= {"controls": with_facts(run.relie.drop_attrs(deep=False), **facts)}
    stores |= {"control-evaluations": with_facts(run.evaluation.drop_attrs(deep=False), **facts)}
    flags = ["--suite", "toy", "--contrasts", json.dumps({"near": ["far"]})]
    for name, dataset in stores.items():
        write_store(dataset, tmp_path / f"{name}.zarr", dataset.attrs)
        flags += [f"--{name}", str(tmp_path / f"{name}.zarr")]
    flags += ["--ablations"]
    for task, dataset in run.ablations.items():
        write_store(dataset, tmp_path / "ablation" / f"{task}.zarr", dataset.attrs)
        flags += [str(tmp_path / "ablation" / f"{task}.zarr")]
    comparisons = tmp_path / "comparisons.yaml"
    comparisons.write_text(yaml.safe_dump({"pair": {"checkpoints": REVISIONS[1:], "why": "It <rises>."}}))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "train.tsv").write_text(f"{HEAD}60\t0:01:00\t200\t1\n")
    output = tmp_path / "report" / "index.html"
    flags += ["--comparisons", str(comparisons), "--configs", str(comparisons), "--output", str(output)]
    flags += ["--benchmarks", str(tmp_path / "benchmarks")]
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, *flags], capture_output=True, text=True, check=True
    ).stderr
    assert "matplotlib" in trace
    assert not re.search(r"\b(torch|transformers)$", trace, re.MULTILINE)
    pages = pages_in(output.parent)
    assert "It &lt;rises&gt;." in pages["index"] and "60 s in all" in pages["method"]
    assert 'href="../relies.zarr"' in pages["method"] and "comparisons.yaml" in pages["method"]
