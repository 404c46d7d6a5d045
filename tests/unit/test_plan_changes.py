"""How many features change, from expectation and from results; and what is chosen by that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_plan import ANY, SMALL, changed, settings

from chronocoder.config import AttributionSettings
from chronocoder.layout import Layout
from chronocoder.plan.changes import TOP_FREQUENCY, Changes, changes_of, expected_l0
from chronocoder.plan.compute import Measuring, Prompts, exact_flops, resumed_flops
from chronocoder.plan.costs import cost_of
from chronocoder.plan.estimator import chosen_estimator, exact_hours
from chronocoder.plan.hardware import ACCELERATORS, Peak, Work
from chronocoder.plan.jobs import Job, jobs_of
from chronocoder.plan.measured import NOTHING, Measured, measured_of, texts_of
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.plan.place import Place
from chronocoder.plan.plan import Plan, make_plan
from chronocoder.plan.sizes import EXPECTED_TEXTS, PREFIX_TOKENS, SENTENCE_TOKENS, TaskTexts, expected_texts
from chronocoder.plan.text import plan_text
from chronocoder.stores import labelled, write_store

DEEP = replace(SMALL, blocks=12)


def attribution(**values: Any) -> AttributionSettings:
    return AttributionSettings.model_validate({"estimator": "exact", **values})


@pytest.mark.parametrize("intervention", ["zero", "counterfactual", "resample", "mean"])
@pytest.mark.parametrize("l0", [2.0, 12.0, 40.0])
def test_changes_are_those_of_features_that_are_active_at_random(intervention: str, l0: float) -> None:
    latents, length = 40, 9
    generator = np.random.default_rng(0)
    active, other = generator.random((2, 2000, length - 1, latents)) < l0 / latents
    changing = {"zero": active, "mean": np.ones_like(active)}.get(intervention, active | other)
    ever = changing.any(axis=1)
    suffix = np.where(ever, length - 1 - changing.argmax(axis=1), 0)
    found = changes_of(attribution(intervention=intervention), latents, l0, length)
    assert found.features == pytest.approx(ever.sum(axis=1).mean(), rel=0.02)
    assert found.tokens == pytest.approx(suffix.sum(axis=1).mean(), rel=0.02)
    strong = found.of_strong(10, latents)
    assert strong.features == pytest.approx(10 * max(TOP_FREQUENCY, found.features / latents))
    assert strong.tokens / strong.features == pytest.approx(found.tokens / found.features)
    if intervention == "zero":
        rows = found.at_positions(length, l0 / latents)
        assert rows.features == pytest.approx(active.sum(axis=(1, 2)).mean(), rel=0.02)
        assert rows.tokens == pytest.approx(
            (active * np.arange(length - 1, 0, -1)[:, None]).sum((1, 2)).mean(), rel=0.02
        )


def test_a_dead_dictionary_changes_nothing() -> None:
    assert changes_of(attribution(), 40, 0.0, 9) == Changes(0, 0)
    assert Changes(0, 0).of_strong(10, 40) == Changes(0, 0)
    assert changes_of(attribution(), 40, 3.0, 1) == Changes(0, 0)  # nothing but the first token


def test_expected_active_latents() -> None:
    assert expected_l0(settings("batchtopk", k=7)) == 7
    assert expected_l0(settings("l1", dictionary_size=320)) == 10
    assert expected_l0(settings("l1", dictionary_size=16384)) == 100


def test_hours_by_hand() -> None:
    crosscoder, variant = CrosscoderShape(2, 8, 24), settings("topk", k=4)
    own, prompts = attribution(random_directions=0), Prompts(50, PREFIX_TOKENS)
    flops = exact_flops(Measuring(own, SMALL, crosscoder, Prompts(50, PREFIX_TOKENS), "residual.0", 4))
    found = exact_hours(own, variant, SMALL, crosscoder, prompts, "residual.0")
    assert found == pytest.approx(flops / (67e12 * 0.4 * 3600))
    faster = own.model_copy(update={"precision": "tf32", "accelerator": "a100"})
    assert exact_hours(faster, variant, SMALL, crosscoder, prompts, "residual.0") == pytest.approx(
        flops / (156e12 * 0.4 * 3600)
    )
    dense = exact_flops(Measuring(own, SMALL, crosscoder, Prompts(50, PREFIX_TOKENS), "residual.0", 24))
    once = resumed_flops(SMALL, Prompts(50, PREFIX_TOKENS), "residual.0")
    assert 2 * (2 + 23 * 8 / 9) * once < dense < 2 * (2 + 24) * once  # all tokens but the first


def test_exact_effects_of_pythia_1b_take_minutes() -> None:
    """Nine tasks of 400 pairs at three checkpoints, as the documentation says, on one H100 in float32."""
    shape = ModelShape(2048, 16, 2048, 2048, 8192, 50304, gated=False, tied=False, stored_bytes=2)
    variant, prompts = settings("l1", dictionary_size=16384), Prompts(9 * 400, PREFIX_TOKENS)
    hours = exact_hours(attribution(), variant, shape, CrosscoderShape(3, 2048, 16384), prompts, "residual.8")
    assert 10 / 60 < hours < 20 / 60
    faster = attribution(precision="tf32")
    assert exact_hours(faster, variant, shape, CrosscoderShape(3, 2048, 16384), prompts, "residual.8") < 3 / 60


def test_auto_is_decided_by_hours() -> None:
    auto = attribution(estimator="auto", exact_hours=2.0)
    assert chosen_estimator(auto, 2.0) == "exact"
    assert chosen_estimator(auto, 2.1) == "two_stages"
    assert chosen_estimator(attribution(estimator="published", exact_hours=0), 9.0) == "published"


def test_precision_counts_in_a_plan() -> None:
    assert ACCELERATORS["v100"].rate("tf32") == ACCELERATORS["v100"].float32
    assert Peak(1.0, None).rate("bfloat16") == 1.0 and Peak(1.0, 2.0, 3.0).rate("tf32") == 3.0
    job = next(job for job in jobs_of(changed()) if job.rule == "attribute_task")
    works = {
        name: cost_of(Place(changed(attribution__precision=name), DEEP, job, True)).work
        for name in ("float32", "tf32", "bfloat16")
    }
    assert len({work.flops for work in works.values()}) == 1
    assert works["float32"].tf32 == 0 < works["tf32"].float32 < works["tf32"].tf32  # what is read is of float32
    assert works["bfloat16"].bfloat16 == works["tf32"].tf32
    assert ANY.hours(Work(tf32=1e12)) == ANY.hours(Work(float32=1e12))


def test_results_tell_a_plan_what_was_expected(tmp_path: Path) -> None:
    experiment = changed(results=str(tmp_path))
    assert measured_of(experiment) == NOTHING
    layout, suite = Layout(str(tmp_path)), "nursery"
    run = {"suite": suite, "comparison": "onset", "variant": "batchtopk", "seed": experiment.seeds[0]}
    task = next(iter(experiment.suites[suite].tasks))
    l0 = xr.Dataset({"l0": labelled((), 7.5, "active")})
    write_store(l0, Path(layout.evaluation.format(**run)), {"suite": suite})
    lengths = xr.Dataset({"length": labelled(("example",), np.array([3, 4]), "tokens")})
    write_store(lengths, Path(layout.task.format(suite=suite, task=task)), {"suite": suite})
    found = measured_of(experiment)
    assert found == Measured({(suite, "onset", "batchtopk"): 7.5}, {(suite, task): TaskTexts(1, 3.5, 0)})
    job = Job("attribute_task", suite, "onset", "batchtopk", 0, task, (task,))
    place = Place(experiment, DEEP, job, True, found)
    assert place.l0 == 7.5 and place.prompts[0].length == 3.5
    assert place._replace(measured=NOTHING).l0 == experiment.variants["batchtopk"].model_dump()["k"]
    assert place.exact_hours < place._replace(measured=NOTHING).exact_hours
    assert cost_of(place).work.float32 < cost_of(place._replace(measured=NOTHING)).work.float32


def test_a_task_store_tells_what_is_read_of_two_sentences(tmp_path: Path) -> None:
    lengths, first = np.array([[3, 4], [6, 7]]), np.array([[2, 3], [3, 4]])
    columns = {"length": lengths, "scored_from": first}
    task = xr.Dataset({name: labelled(("example", "member"), values, name) for name, values in columns.items()})
    assert texts_of(task) == TaskTexts(2, 4.0, 2.0)  # the last token is scored and not read
    assert texts_of(task).tokens == 8.0


def test_the_metric_tells_what_will_be_read() -> None:
    def texts(**values: Any) -> TaskTexts:
        source = {"kind": "nursery", "pairs": 10} if "kind" not in values else {"path": "x.jsonl"}
        experiment = changed(
            suites__nursery__tasks={"agreement_simple": {**source, **values}},
            suites__nursery__contrasts={},
            suites__nursery__taskspace=None,
        )
        return expected_texts(experiment.suites["nursery"].tasks["agreement_simple"])

    sentence, prefix = EXPECTED_TEXTS["sentence"], EXPECTED_TEXTS["next_token"]
    assert sentence == TaskTexts(2, SENTENCE_TOKENS, SENTENCE_TOKENS) and prefix == TaskTexts(1, PREFIX_TOKENS, 0)
    assert texts() == texts(kind="pairs") == prefix
    assert texts(metric="sentence") == texts(kind="blimp") == texts(kind="clams", path="x.txt") == sentence
    assert texts(kind="table", columns={"good": "a", "bad": "b"}) == sentence
    assert texts(kind="table", columns={"prefix": "a", "right": "b", "wrong": "c"}) == prefix
    assert texts(kind="blimp", metric="continuation") == EXPECTED_TEXTS["continuation"]


def test_sentences_cost_more_than_prefixes() -> None:
    """Twice as many texts, with logits of all positions, take more hours of exact effects, and more on disk."""

    def plan(metric: str) -> Plan:
        tasks = {"agreement_simple": {"kind": "nursery", "pairs": 100, "metric": metric}}
        experiment = changed(
            suites__nursery__tasks=tasks, suites__nursery__contrasts={}, suites__nursery__taskspace=None
        )
        return make_plan(experiment, {"nursery": DEEP}, ANY)

    prefix, continuation, sentence = (plan(metric) for metric in EXPECTED_TEXTS)
    assert 2 * prefix.effects[0].exact_hours < continuation.effects[0].exact_hours < sentence.effects[0].exact_hours
    kinds = {stored.kind: stored.size_bytes for stored in sentence.stores}
    less = {stored.kind: stored.size_bytes for stored in prefix.stores}
    assert {kind for kind, size in kinds.items() if size > less[kind]} == {"ablations", "tasks, scores, report"}


def test_a_plan_says_how_effects_will_be_measured() -> None:
    shapes = {"nursery": DEEP}
    plan = make_plan(changed(attribution__estimator="auto"), shapes, ANY)
    one = next(effects for effects in plan.effects if effects.variant == "batchtopk")
    assert one.estimator == "exact" and 0 < one.exact_hours < 0.01 and one.accelerator == "h100"
    text = plan_text(plan)
    row = next(line for line in text.splitlines() if line.split()[:2] == [f"nursery/{one.comparison}", "batchtopk"])
    assert text.index("Effects of features on all tasks") < text.index("Bytes on disk")
    assert row
    none = make_plan(changed(attribution__estimator="auto", attribution__exact_hours=0), shapes, ANY)
    assert {effects.estimator for effects in none.effects} == {"two_stages"}
