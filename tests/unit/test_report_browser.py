"""The report's page as a browser draws it."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chronocoder.report.page import write_page
from report_stores import (
    FACTS,
    SENTENCES,
    evaluation_store,
    longer,
    make_run,
    of_sentences,
    six_features,
    suite_behaviour,
    toy_inputs,
    with_clusters,
    with_control,
    with_facts,
)
from taskspace_stores import with_task_space

from chronocoder.report.inputs import ReportInputs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def inputs() -> ReportInputs:
    return toy_inputs(six_features())


def body_in_browser(page: Path, profile: Path) -> str:
    """Return what the page's script made of it; fail if it wrote to the console."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    browser = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in browser.stderr
    return re.sub(r"<script.*?</script>", "", browser.stdout, flags=re.DOTALL)


def section(body: str, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}">.*?</section>', body, flags=re.DOTALL)
    return found


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page's script is not run")


@needs_browser
@pytest.mark.parametrize("contrasts", [True, False])
def test_page_draws_itself_in_a_browser(inputs: ReportInputs, tmp_path: Path, contrasts: bool) -> None:
    write_page(inputs if contrasts else replace(inputs, contrasts=[]), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    assert body.count("js-plotly-plot") == (11 if contrasts else 7)
    assert body.count('<article class="card">') == 3
    assert "Feature 0" in body and ("less than half of the harm is left at step20" in body) == contrasts
    assert "&lt;/script&gt;&lt;b&gt;" in body and "<b>" not in body
    assert 'id="courses"' not in body
    assert "seed 0 against 1, 2" in section(body, "seeds")


@needs_browser
def test_browser_tells_writer_from_reader(inputs: ReportInputs, tmp_path: Path) -> None:
    write_page(inputs, tmp_path / "index.html")
    writing = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "writing")
    assert writing.count("js-plotly-plot") == 1 and writing.count("From step10 to step20") == 3
    assert "own code at step10" in writing and "(−0.385 to −0.365)" in writing


@needs_browser
def test_browser_shows_how_far_effects_can_be_trusted(inputs: ReportInputs, tmp_path: Path) -> None:
    write_page(inputs, tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    trust, top = section(body, "trust"), section(body, "top")
    assert "RelIE by attribution patching predicts the share of the exact effect better than" in trust
    assert "lowest 0.80: near" in trust
    assert "were also changed one at a time in the model itself" in trust and "Were IE exact" in trust
    assert "about 5 % of random directions exceed the level" in trust
    assert trust.count("js-plotly-plot") == 2 and "At step20, where accuracy is 0.90" in trust
    assert "discontinued by every basis (97 % of resamples)" in top and "onset" not in top
    assert "random directions ±0.050; q 0.001; exact 0.500" in top and top.count('class="exact"') == 4
    assert "(0.000)" in top
    assert 'title="0.750 logits"' in top and 'title="−0.250 logits"' in top
    assert "<strong>are</strong> / <s>is</s>" in top
    assert "accuracy 0.90 → 0.60" in top


@needs_browser
def test_browser_shows_both_sentences_of_a_pair_and_warnings(inputs: ReportInputs, tmp_path: Path) -> None:
    far_first = of_sentences(six_features()).isel(task=[1, 0])
    facts = FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)}
    behaviour = with_facts(suite_behaviour(np.array([[0.5, 0.9, 1.0], [0.5, 0.1, 0.9]]), facts))
    write_page(replace(inputs, runs=[make_run(far_first)], behaviour=behaviour), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    ability, top = section(body, "ability"), section(body, "top")
    assert ability.count("js-plotly-plot") == 1 and '<option value="1">by language</option>' in ability
    assert top.count("<div>✓ ") == top.count("<div>✗ ") > 0
    assert 'title="0.750 nats"' in top and 'title="−0.375 nats"' in top
    assert "log-probability of the right sentence changed by −0.300 nats" in top
    assert "IE (nats)" in top and "RelIE by language" in top
    assert "▲ made for &lt;other&gt; metrics." in top and '<option value="0">▲ far</option>' in top


@needs_browser
def test_browser_says_what_is_exact(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    relie = run.relie.assign(estimator=xr.full_like(run.relie["estimator"], "exact"))
    write_page(replace(inputs, runs=[replace(run, relie=relie)]), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    trust = section(body, "trust")
    assert "IE here is exact ablation. The table shows how well the cheaper estimators" in trust
    assert "Did effects simply add up" in trust and "Were IE exact" not in trust
    assert "Diamond" not in body


@needs_browser
def test_browser_brackets_and_marks_surface_features(inputs: ReportInputs, tmp_path: Path) -> None:
    write_page(inputs, tmp_path / "index.html")
    abstraction = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "abstraction")
    assert "In brackets: the interval holds zero, or |IE| is not above that level." in abstraction
    assert abstraction.count("(0.000)") == 4 and "(−0.800)" not in abstraction
    assert abstraction.count("code not supported by step10") == 1


@needs_browser
def test_browser_shows_courses_of_longer_comparisons(inputs: ReportInputs, tmp_path: Path) -> None:
    runs = [make_run(with_clusters(longer(inputs.runs[0].relie)), "course"), *inputs.runs]
    write_page(replace(inputs, runs=runs, seed_matches=[]), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    courses, top = section(body, "courses"), section(body, "top")
    assert courses.count("js-plotly-plot") == 1 and "Share of |IE| over training" in courses
    assert '<td class="number">10</td>' in courses
    assert "onset step20 · peak step20" in top and "kept to the end" in top
    assert 'id="seeds"' not in body


@needs_browser
def test_browser_shows_effects_by_condition(inputs: ReportInputs, tmp_path: Path) -> None:
    far_first = six_features().isel(task=[1, 0])
    write_page(replace(inputs, runs=[make_run(far_first)]), tmp_path / "index.html")
    top = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "top")
    assert "far two · emerged" in top and "Mean of conditions" in top
    assert "emerged as published (97 % of resamples) · maintained by IE over total |IE| (claims of" in top
    assert "conditions differ in sign at step20" in top
    assert "code not supported by step10 (R² 0.13, preactivation share 0.25)" in top
    assert "code not supported by step20" not in top
    assert "0.90 (0.85 to 0.95)" in top


@needs_browser
@pytest.mark.parametrize("controlled", [True, False])
def test_browser_shows_classes_beside_controls(inputs: ReportInputs, tmp_path: Path, controlled: bool) -> None:
    write_page(with_control(inputs) if controlled else inputs, tmp_path / "index.html")
    controls = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "controls")
    assert "Percentages are of the 6 features and the 20 random directions (2 draws)" in controls
    assert '<tr class="beyond"><th rowspan="3">emerged</th><td>published</td><td>3 (50\u00a0%)</td>' in (
        controls.replace("&nbsp;", "\u00a0")
    )
    assert controls.count("no more than chance") and controls.count(">more than chance") == 2
    assert "2 of 10 feature–task pairs of decided class have another class" in controls
    assert "Reversals within a condition: 0 features (0.0&nbsp;%), random directions 5.0&nbsp;%." in controls
    assert ("8 of 10 (96&nbsp;%)" in controls) == controlled
    assert ("Comparisons without development" in controls) == controlled
    assert ("One dictionary, or one for each checkpoint" in controls) == controlled


@needs_browser
@pytest.mark.parametrize("recovered", [0.95, 1.01])
def test_browser_marks_what_is_recovered_above_one(inputs: ReportInputs, tmp_path: Path, recovered: float) -> None:
    run = inputs.runs[0]
    evaluation = with_facts(evaluation_store(run.checkpoints, recovered=recovered), **run.key._asdict())
    write_page(replace(inputs, runs=[replace(run, evaluation=evaluation)]), tmp_path / "index.html")
    quality = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "quality")
    assert ("▲ 1.010" in quality) == ("More than everything is recovered" in quality) == (recovered > 1)
    assert f'title="cross-entropy {"−0.0100" if recovered > 1 else "+0.0500"} ± 0.0025 nats"' in quality
    assert "0.800" in quality and "0.850" in quality and "0.750" in quality


CHOOSE = """<script>
for (const [name, places] of Object.entries({ transfer: [1, 0], gradients: [1, 1], spaces: [1], bridge: [0, 1] })) {
  document.querySelectorAll(`[data-choice="${name}"]`).forEach((select, level) => {
    select.value = places[level];
    select.dispatchEvent(new Event("change"));
  });
}
const [cells] = document.querySelectorAll('[data-figures="transfer"] .js-plotly-plot');
Plotly.Fx.hover(cells, { xval: 2, yval: 1 });
document.body.append(cells.querySelector(".hoverlayer").textContent);
</script></body>"""


@needs_browser
@pytest.mark.parametrize("runs", [True, False])
def test_browser_shows_the_task_space(inputs: ReportInputs, tmp_path: Path, runs: bool) -> None:
    alone = replace(inputs, runs=[], seed_matches=[], comparisons={}, contrasts=[])
    write_page(with_task_space(inputs if runs else alone), tmp_path / "index.html")
    space = section(body_in_browser(tmp_path / "index.html", tmp_path / "profile"), "taskspace")
    panels = {"transfer": 2, "damage": 3, "gradients": 2, "gradientCourse": 4, "spaces": 3, "spaceCourse": 4}
    assert space.count("js-plotly-plot") == sum(panels.values()) + 3 * runs
    assert "<figcaption>Transfer at step20 (logits)</figcaption>" in space
    assert "<figcaption>Cosine of gradients at step20</figcaption>" in space
    assert ("Overlap of features: ρ = 0.60, p = 0.004" in space) == runs
    assert '<option value="1">plain (right sentences only, 100&nbsp;% of the parameters)</option>' in space


@needs_browser
def test_browser_shows_the_matrix_that_is_chosen(inputs: ReportInputs, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    write_page(with_task_space(inputs), page)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", CHOOSE), encoding="utf-8")
    body = body_in_browser(page, tmp_path / "profile")
    space = section(body, "taskspace")
    assert "<figcaption>Transfer at step0 (logits)</figcaption>" in space
    assert "<figcaption>Cosine, corrected for sampling at step10</figcaption>" in space
    assert "<figcaption>Overlap of features: ρ = 0.30, p = 0.004</figcaption>" in space
    assert "<figcaption>step0</figcaption>" in space and "(7 of 7 tasks left out)" not in space
    (hover,) = re.findall(r"</svg>([^<]*)</body>", body)
    said = r"tuned on far,evaluated on across clause:.* \(.* to .*\) logitschance level ±.*accuracy changes by .*"
    assert re.fullmatch(said, hover.strip())
