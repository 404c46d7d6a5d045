import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from chronocoder.attribution import measures
from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.contrasts import ContrastFeatures, Ranked, clearest_run, find_contrast_features
from chronocoder.report.data import CLASSES, class_counts, feature_words, measurable, shown_features
from chronocoder.report.feature_figures import effect_scale, share_spread, thresholds
from chronocoder.report.inputs import Contrast, ReportInputs, Run, RunKey, match_runs, read_contrasts
from chronocoder.report.page import key_numbers, render_page, write_page
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.summary import find_surface_phase, summarise
from chronocoder.report.text import listed, peak_words, short_count, signed
from chronocoder.settings import Settings
from chronocoder.stores import labelled, provenance, strings, write_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_report.py"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CONTRAST = Contrast("near", "far")
REVISIONS = ["step0", "step10", "step20"]
TOKENS_SEEN = [0, 1_000, 50_000]
HOSTILE = " </script><b>&amp;"
FEATURES = 6


def behaviour_store(near: list[float], far: list[float], tokens_seen: list[int] = TOKENS_SEEN) -> xr.Dataset:
    accuracy = np.array([near, far])
    dims = ("task", "checkpoint")
    return xr.Dataset(
        {
            "accuracy": labelled(dims, accuracy, "accuracy"),
            "accuracy_low": labelled(dims, np.clip(accuracy - 0.05, 0, 1), "low"),
            "accuracy_high": labelled(dims, np.clip(accuracy + 0.05, 0, 1), "high"),
        },
        coords={
            "task": strings(CONTRAST),
            "checkpoint": strings(REVISIONS),
            "tokens_seen": ("checkpoint", tokens_seen),
        },
    )


def relie_store(near: list[list[float]], far: list[list[float]], classes: list[str], margin: float = 0.1) -> xr.Dataset:
    """Effects by task, dims (checkpoint, feature), of the last checkpoints; the same classes for both tasks."""
    effect = np.array([near, far])
    dims = ("task", "checkpoint", "feature")
    with np.errstate(invalid="ignore"):
        share = abs(effect) / abs(effect).sum(axis=1, keepdims=True)
    revisions = REVISIONS[-effect.shape[1] :]
    return xr.Dataset(
        {
            "indirect_effect": labelled(dims, effect, "IE", "logit"),
            "indirect_effect_low": labelled(dims, effect - margin, "low", "logit"),
            "indirect_effect_high": labelled(dims, effect + margin, "high", "logit"),
            "relative_indirect_effect": labelled(dims, share, "RelIE"),
            "relative_indirect_effect_low": labelled(dims, share, "low"),
            "relative_indirect_effect_high": labelled(dims, share, "high"),
            "relative_decoder_norm": labelled(dims[1:], np.full(effect.shape[1:], 0.5), "RelDec"),
            "activation_frequency": labelled(("task", "feature"), np.full((2, effect.shape[2]), 0.25), "frequency"),
            "feature_class": labelled(("task", "feature"), strings([classes, classes]), "class"),
            "onset": labelled(("task", "feature"), strings([[""] * len(classes)] * 2), "onset"),
        },
        coords={
            "task": strings(CONTRAST),
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", TOKENS_SEEN[-len(revisions) :]),
            "feature": np.arange(effect.shape[2]),
        },
    )


@pytest.fixture
def relie() -> xr.Dataset:
    """Feature 0: surface rule; 1: took over; 2: changed sides; 3: surface, undecided; 4: emerged and harms; 5: none."""
    near = [[1.0, 0.0, 0.5, 0.05, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0, 0.0, 0.0]]
    far = [[-0.8, 0.0, -0.3, -1.0, 0.0, 0.0], [0.0, 2.0, 0.7, 0.0, -1.0, 0.0]]
    return relie_store(near, far, ["discontinued", "emerged", "emerged", "discontinued", "emerged", "no effect"])


def example_store() -> xr.Dataset:
    tokens = [["<|eos|>", " the", " ch", "ild", "ren", HOSTILE], ["", "", "", " two", " ox", "en"]]
    token_id = [[0, 1, 2, 3, 4, 5], [-1, -1, -1, 6, 7, 8]]
    activation = [[0.0, 0.1, 0.5, 2.0, 0.0, 1.5], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    dims = ("feature", "example", "position")
    return xr.Dataset(
        {
            "token_id": labelled(dims, np.array([token_id]), "token"),
            "token": labelled(dims, strings([tokens]), "text"),
            "activation": labelled(dims, np.array([activation], dtype=np.float32), "activation"),
            "activation_frequency": labelled(("feature",), np.array([0.1]), "frequency"),
        },
        coords={"feature": [0], "example": [0, 1], "position": np.arange(6) - 3},
    )


def training_store(revisions: list[str]) -> xr.Dataset:
    steps, falling = [0, 10, 20], np.array([3.0, 2.0, 1.0])
    return xr.Dataset(
        {
            "explained_variance": labelled(("step", "checkpoint"), np.ones((3, len(revisions))), "explained"),
            **{name: labelled(("step",), falling, name) for name in ("l0", "dead_fraction", "loss")},
        },
        coords={"step": steps, "checkpoint": strings(revisions)},
    )


def evaluation_store(revisions: list[str]) -> xr.Dataset:
    return xr.Dataset(
        {
            "explained_variance": labelled(("checkpoint",), np.full(len(revisions), 0.9), "explained"),
            "cross_entropy_recovered": labelled(("checkpoint",), np.full(len(revisions), 0.95), "recovered"),
            "l0": labelled((), 12.0, "l0"),
            "dead_fraction": labelled((), 0.25, "dead"),
        },
        coords={"checkpoint": strings(revisions)},
    )


def similarity_store() -> xr.Dataset:
    values = np.eye(len(REVISIONS))[None]
    dims = ("site", "checkpoint", "other_checkpoint")
    return xr.Dataset(
        {name: labelled(dims, values, name) for name in ("cosine", "pearson", "linear_cka")},
        coords={
            "site": strings(["residual.2"]),
            "checkpoint": strings(REVISIONS),
            "other_checkpoint": strings(REVISIONS),
        },
    )


def with_facts(dataset: xr.Dataset, **facts: str | int) -> xr.Dataset:
    return dataset.assign_attrs(provenance(Settings(), suite="toy", **facts))


def make_run(relie: xr.Dataset, comparison: str = "pair") -> Run:
    revisions = [str(name) for name in relie["checkpoint"].values]
    stores = (training_store(revisions), evaluation_store(revisions), relie, example_store())
    facts = {"comparison": comparison, "variant": "l1", "seed": 0, "site": "residual.2"}
    return Run(RunKey(comparison, "l1", 0), *(with_facts(store, **facts) for store in stores))


@pytest.fixture
def inputs(relie: xr.Dataset) -> ReportInputs:
    return ReportInputs(
        suite="toy",
        behaviour=with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9])),
        similarity=with_facts(similarity_store()),
        comparisons={"pair": REVISIONS[1:]},
        runs=[make_run(relie)],
        contrasts=[CONTRAST],
        example_path="results/toy/pair/l1/seed0/relie.zarr",
    )


def without_contrasts(inputs: ReportInputs) -> ReportInputs:
    return ReportInputs(**{**vars(inputs), "contrasts": []})


def embedded(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="document">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_surface_phase_is_found_where_one_task_is_above_and_the_other_below_chance() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9]), CONTRAST)
    assert phase is not None
    assert phase.checkpoints == ["step10"]
    assert phase.clearest == "step10"
    assert (phase.surface_accuracy, phase.conflicting_accuracy) == pytest.approx((0.9, 0.1))
    assert phase.end == "step20"


def test_surface_phase_without_an_end() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]), CONTRAST)
    assert phase is not None
    assert phase.clearest == "step20"
    assert phase.end is None


@pytest.mark.parametrize("far", [[0.5, 0.6, 0.9], [0.5, 0.47, 0.9]])
def test_no_surface_phase_where_intervals_hold_chance(far: list[float]) -> None:
    assert find_surface_phase(behaviour_store([0.5, 0.9, 1.0], far), CONTRAST) is None


def test_summary_names_phase_and_features(inputs: ReportInputs) -> None:
    found = [{CONTRAST: find_contrast_features(inputs.runs[0].relie, CONTRAST)}]
    labels, texts = zip(*summarise(inputs, found), strict=True)
    assert labels == ("Ability", "Surface phase", "Features")
    assert "0.90 on “near” but 0.10 on “far”" in texts[1]
    assert "feature 0 (most active on: children, oxen)" in texts[2]
    assert "+1.00" in texts[2] and "−0.80" in texts[2]
    assert "feature 1 helps “far” most at step20 (+2.00)" in texts[2]


def test_summary_is_silent_without_a_surface_phase(inputs: ReportInputs, relie: xr.Dataset) -> None:
    quiet = ReportInputs(
        **{
            **vars(inputs),
            "behaviour": with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.8, 0.9])),
            "runs": [make_run(relie_store([[1.0]] * 2, [[1.0]] * 2, ["maintained"]))],
        }
    )
    found = [{CONTRAST: find_contrast_features(quiet.runs[0].relie, CONTRAST)}]
    assert [finding.label for finding in summarise(quiet, found)] == ["Ability"]


def test_contrast_features_are_told_apart(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST)
    assert found.surface == {"step10": Ranked([0, 2], [0.8, 0.3]), "step20": Ranked([], [])}
    assert found.took_over == Ranked([1, 2], [2.0, 0.7])
    assert found.newcomers == [1]
    assert found.changed_sides == {2}
    roles = [found.role(feature) for feature in range(FEATURES)]
    assert roles == ["surface rule", "took over", "changed sides", "other", "other", "other"]


def test_wide_intervals_leave_no_contrast_features(relie: xr.Dataset) -> None:
    near, far = (relie["indirect_effect"].sel(task=task).values.tolist() for task in CONTRAST)
    wide = relie_store(near, far, ["emerged"] * FEATURES, margin=3.0)
    assert not find_contrast_features(wide, CONTRAST).strength
    assert not find_contrast_features(wide, CONTRAST).took_over.features


def test_clearest_run_prefers_one_that_shows_both() -> None:
    def of_run(strength: float, newcomers: list[int], gone: float = 0.0) -> ContrastFeatures:
        surface = Ranked([9], [strength]) if strength else Ranked([], [])
        gave_way = Ranked([9], [gone]) if gone else Ranked([], [])
        return ContrastFeatures({"a": surface}, gave_way, Ranked(newcomers, [1.0] * len(newcomers)))

    assert clearest_run([of_run(5.0, []), of_run(1.0, [3]), of_run(2.0, [3])]) == 2
    assert clearest_run([of_run(5.0, [3]), of_run(1.0, [3], gone=0.5), of_run(2.0, [], gone=0.3)]) == 1
    assert clearest_run([of_run(5.0, []), of_run(0.0, [3])]) == 0
    assert clearest_run([of_run(0.0, [3])]) is None
    assert clearest_run([]) is None


def test_class_counts_hold_every_feature_and_all_of_the_effect(relie: xr.Dataset) -> None:
    assert set(CLASSES) == set(measures.CLASSES)
    counts = np.array(class_counts(relie))
    assert (counts[:, :, 0].sum(axis=1) == FEATURES).all()
    np.testing.assert_allclose(counts[:, :, 1].sum(axis=1), 1, atol=0.01)


def test_shares_are_weighed_by_effect_and_leave_out_what_is_not_measurable(relie: xr.Dataset) -> None:
    assert measurable(relie).sel(task="near").values.tolist() == [True, False, True, False, False, False]
    spread = share_spread(relie, "step20")
    np.testing.assert_allclose(spread[0].sum(), 1.0 + 0.5 + 0.6)
    np.testing.assert_allclose(spread[0, 0], 1.0)


def test_thresholds_of_a_pair_are_those_of_the_paper() -> None:
    assert thresholds(2) == pytest.approx([0.3, 0.7])
    assert thresholds(3) == pytest.approx([0.2])


def test_effect_scale_is_odd_and_holds_all_effects() -> None:
    effects = np.array([-3.0, -0.01, 0.0, 0.2])
    scale = effect_scale(effects)
    np.testing.assert_allclose(scale.place(-effects), -scale.place(effects))
    assert (np.abs(scale.place(effects)) < scale.axis()["range"][1]).all()
    assert {"−1", "0", "1"} <= set(scale.axis()["ticktext"])


def test_effect_scale_of_no_effect_is_finite() -> None:
    assert np.isfinite(effect_scale(np.zeros(3)).axis()["range"]).all()


@pytest.mark.parametrize("tokens_seen", [[0, 1_000, 50_000], [10, 1_000, 50_000], [0], [0, 5], [7]])
def test_log_axis_shows_every_checkpoint_and_labels_zero_as_zero(tokens_seen: list[int]) -> None:
    seen = np.array(tokens_seen)
    places, axis = place_on_log(seen), log_axis(seen)
    low, high = axis["range"]
    assert ((np.log10(places) >= low) & (np.log10(places) <= high)).all()
    assert (np.diff(places) > 0).all()
    assert ("0" in axis["ticktext"]) == (0 in tokens_seen)
    if 0 in tokens_seen:
        assert axis["tickvals"][axis["ticktext"].index("0")] == pytest.approx(places[0])


def test_words_are_joined_from_the_tokens_around_the_peak() -> None:
    assert peak_words([([" the", " ch", "ild", "ren", "."], 2), ([" ox", "en"], 1), ([" ox", "en"], 0)], 5) == [
        "oxen",
        "children",
    ]
    assert peak_words([(["a", " ."], 1)], 5) == ["."]
    assert feature_words(example_store()) == {0: ["children", "oxen"]}


def test_numbers_in_words() -> None:
    assert [short_count(count) for count in (0, 512, 786_432, 2_097_152, 3e11)] == [
        "0",
        "512",
        "786 k",
        "2.1 M",
        "300 B",
    ]
    assert (signed(-0.25), signed(0.004)) == ("−0.25", "+0.004")
    assert [listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_runs_are_matched_by_attributes_whatever_the_order(relie: xr.Dataset) -> None:
    first, second = make_run(relie, "first"), make_run(relie, "second")
    matched = match_runs(
        [second.training, first.training],
        [first.evaluation, second.evaluation],
        [first.relie, second.relie],
        [second.features, first.features],
    )
    assert [run.key.comparison for run in matched] == ["first", "second"]
    assert all(store.attrs["comparison"] == run.key.comparison for run in matched for store in run.stores.values())


def test_a_run_without_a_store_is_named(relie: xr.Dataset) -> None:
    run = make_run(relie)
    with pytest.raises(StoreError, match="pair · l1 · seed 0"):
        match_runs([], [run.evaluation], [run.relie], [run.features])


def test_a_store_that_does_not_say_its_run_is_an_error(relie: xr.Dataset) -> None:
    run = make_run(relie)
    nameless = run.training.copy()
    del nameless.attrs["variant"]
    with pytest.raises(StoreError, match="lacks the attributes variant"):
        match_runs([nameless], [run.evaluation], [run.relie], [run.features])


def test_contrasts_of_unknown_tasks_are_an_error() -> None:
    assert read_contrasts({"near": ["far"]}, ["near", "far"]) == [CONTRAST]
    with pytest.raises(ConfigError, match="not scored: nowhere"):
        read_contrasts({"near": ["nowhere"]}, ["near", "far"])


def test_hostile_tokens_stay_data(inputs: ReportInputs) -> None:
    page = render_page(inputs)
    assert "</script><b>" not in page
    assert page.count("</script>") == 3
    assert HOSTILE in embedded(page)["vocabulary"]


def test_page_refers_to_nothing_outside_itself(inputs: ReportInputs) -> None:
    page = re.sub(r"<script>.*?</script>", "", render_page(inputs), flags=re.DOTALL)
    assert not re.search(r"(src|href|action)\s*=\s*[\"']?\s*(https?:)?//|url\(|@import|<link|<iframe", page)
    assert "default-src 'none'" in page


def test_page_holds_the_numbers_of_the_shown_features(inputs: ReportInputs) -> None:
    document = embedded(render_page(inputs))
    (run,) = document["runs"]
    assert run["features"] == shown_features(inputs.runs[0], {}) == [0, 1, 2, 3, 4]
    assert run["effect"][1][1] == [0.0, 2.0, 0.7, 0.0, -1.0]
    assert run["share"][0][0][1] is None
    assert run["contrasts"][0]["tookOver"] == [[1, 2], 2]
    assert run["examples"]["0"]["rows"][0][2] == [3]
    assert len(document["contrastFigures"][0][0]) == 2


def test_page_without_contrasts(inputs: ReportInputs) -> None:
    page = render_page(without_contrasts(inputs))
    assert 'id="abstraction"' not in page
    assert embedded(page)["contrastFigures"] == [[]]


def test_key_numbers(inputs: ReportInputs) -> None:
    numbers = {number.label: number.value for number in key_numbers(inputs)}
    assert numbers["tokens seen"] == "0 – 50 k"
    assert numbers["crosscoders"] == "1"


def test_script_writes_the_page_whole_and_without_torch(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {"trainings": run.training, "evaluations": run.evaluation, "relies": run.relie, "features": run.features}
    flags = ["--suite", "toy", "--contrasts", json.dumps({"near": ["far"]})]
    for name, dataset in stores.items():
        write_store(dataset, tmp_path / f"{name}.zarr", dataset.attrs)
        flags += [f"--{name}", str(tmp_path / f"{name}.zarr")]
    comparisons = tmp_path / "comparisons.yaml"
    comparisons.write_text(yaml.safe_dump({"pair": {"checkpoints": REVISIONS[1:]}}))
    output = tmp_path / "report" / "index.html"
    flags += ["--comparisons", str(comparisons), "--output", str(output)]
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, *flags], capture_output=True, text=True, check=True
    ).stderr
    assert "plotly" in trace
    assert not re.search(r"\b(torch|transformers)$", trace, re.MULTILINE)
    assert [path.name for path in output.parent.iterdir()] == ["index.html"]
    assert embedded(output.read_text(encoding="utf-8"))["runs"][0]["label"] == "pair · l1 · seed 0"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page's script is not run")
@pytest.mark.parametrize("contrasts", [True, False])
def test_page_draws_itself_in_a_browser(inputs: ReportInputs, tmp_path: Path, contrasts: bool) -> None:
    page = tmp_path / "index.html"
    write_page(inputs if contrasts else without_contrasts(inputs), page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    browser = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in browser.stderr
    body = re.sub(r"<script.*?</script>", "", browser.stdout, flags=re.DOTALL)
    assert body.count("js-plotly-plot") == (6 if contrasts else 4)
    assert body.count('<article class="card">') == 3
    assert "Feature 0" in body and ("Took over" in body) == contrasts
    assert "&lt;/script&gt;&lt;b&gt;" in body and "<b>" not in body
