"""What interventions change features to: partners, corpus means, and the examples that they cannot be made on."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import FEATURES, corpus_means, folded_crosscoder, slow_effects, tiny_sites

from chronocoder.attribution.attribute import measure_effects, measure_shuffled
from chronocoder.attribution.controls import shuffle_tokens
from chronocoder.attribution.effects import error_change
from chronocoder.attribution.interventions import NEEDED, check_evaluation, draw_partners, prepare_task
from chronocoder.attribution.prompts import read_prompts
from chronocoder.config import AttributionSettings
from chronocoder.errors import StoreError, TaskError
from chronocoder.report.inputs import INTERVENTIONS

RESAMPLE, MEAN = AttributionSettings(intervention="resample"), AttributionSettings(intervention="mean")


def task_of(prefixes: list[list[int]]) -> xr.Dataset:
    """Return a task with these prefixes, padded with -1."""
    ids = np.full((len(prefixes), max(map(len, prefixes))), -1)
    for row, prefix in zip(ids, prefixes, strict=True):
        row[: len(prefix)] = prefix
    lengths = [len(prefix) for prefix in prefixes]
    variables: dict[str, Any] = {"token_id": (("example", "position"), ids), "length": ("example", lengths)}
    return xr.Dataset(variables, coords={"example": np.arange(len(prefixes))}, attrs={"task": "made"})


def check_partners(prefixes: list[list[int]], partners: np.ndarray) -> None:
    for own, place in zip(prefixes, partners, strict=True):
        others = [other for other in prefixes if len(other) == len(own) and other != own]
        assert (prefixes[place] in others) if others else place == -1


@pytest.mark.parametrize("seed", range(20))
def test_partners_of_a_length_have_other_prefixes_and_each_is_taken_once(seed: int) -> None:
    generator = np.random.default_rng(seed)
    repeated = [[0, *generator.integers(1, 4, length).tolist()] for length in (1, 2, 3) for _ in range(20)]
    alone = [[0, 1, 1, 1, 1]]
    partners = draw_partners(task_of(repeated + alone), seed)
    check_partners(repeated + alone, partners)
    assert partners[-1] == -1
    for length in (2, 3, 4):
        own = [place for place, prefix in enumerate(repeated) if len(prefix) == length]
        if max(repeated.count(repeated[place]) for place in own) <= 10:
            assert sorted(partners[own]) == own


def test_a_prefix_of_most_examples_shares_the_partners_there_are() -> None:
    prefixes = [[0, 1]] * 7 + [[0, 2], [0, 3]]
    partners = draw_partners(task_of(prefixes), 0)
    check_partners(prefixes, partners)
    assert set(partners[:7]) == {7, 8} and (partners[7:] < 7).all()


def test_every_other_example_is_as_likely_a_partner() -> None:
    task = task_of([[0, number] for number in range(1, 5)])
    drawn = np.array([draw_partners(task, seed) for seed in range(600)])
    for place in range(4):
        counts = np.bincount(drawn[:, place], minlength=4)
        assert counts[place] == 0 and (np.delete(counts, place) > 150).all()
    np.testing.assert_array_equal(draw_partners(task, 7), draw_partners(task, 7))


def test_examples_without_a_partner_are_left_out_and_counted() -> None:
    prefixes = [[0, 1], [0, 1, 1], [0, 2], [0, 3, 3, 3], [0, 3, 3, 3]]
    prepared = prepare_task(task_of(prefixes), RESAMPLE)
    assert prepared["example"].values.tolist() == [0, 2] and prepared.attrs["examples_left_out"] == 3
    assert prepared["partner_id"].values.tolist() == [[0, 2, -1, -1], [0, 1, -1, -1]]
    with pytest.raises(
        TaskError,
        match="task 'made': no two pairs have different prefixes of as many tokens; supply some, or set"
        r" attribution\.intervention to zero or mean",
    ):
        prepare_task(task_of([[0, 1], [0, 1], [0, 1, 2]]), RESAMPLE)


def test_other_interventions_count_what_they_leave_out(task: xr.Dataset) -> None:
    assert prepare_task(task, AttributionSettings()).attrs["examples_left_out"] == 0
    some = task.assign(has_counterfactual=("example", np.arange(6) < 2))
    prepared = prepare_task(some, AttributionSettings(intervention="counterfactual"))
    assert prepared.attrs["examples_left_out"] == 4 and prepared.sizes["example"] == 2
    assert prepare_task(task, MEAN, corpus_means()).attrs["examples_left_out"] == 0


def test_every_intervention_of_the_settings_is_prepared_and_has_words_in_the_report() -> None:
    names = get_args(AttributionSettings.model_fields["intervention"].annotation)
    assert set(names) == set(NEEDED) == set(INTERVENTIONS)


def test_means_come_from_an_evaluation_of_the_crosscoder(task: xr.Dataset) -> None:
    with pytest.raises(
        StoreError,
        match="intervention 'mean' needs mean_code and mean_site_activation from the crosscoder's evaluation; evaluate",
    ):
        prepare_task(task, MEAN)
    with pytest.raises(StoreError, match="intervention 'mean' needs mean_code from the crosscoder's evaluation"):
        prepare_task(task, MEAN, corpus_means().drop_vars("mean_code"))
    facts = folded_crosscoder().facts
    check_evaluation(corpus_means().assign_attrs(facts), facts)
    with pytest.raises(
        StoreError,
        match="the evaluation given has seed 3, not 0; give the evaluation of this crosscoder",
    ):
        check_evaluation(corpus_means().assign_attrs({**facts, "seed": 3}), facts)


@pytest.mark.parametrize(("settings", "missing"), [(MEAN, "mean_code, mean_site_activation"), (RESAMPLE, "partner_id")])
def test_task_that_is_not_prepared_is_refused(settings: AttributionSettings, missing: str, task: xr.Dataset) -> None:
    with pytest.raises(
        TaskError,
        match=f"task 'test': has no {missing}, which intervention '{settings.intervention}' needs;"
        " give the task as prepare_task returns it",
    ):
        measure_effects(folded_crosscoder(), tiny_sites(), task, settings)


def test_all_means_together_are_the_mean_activation(task: xr.Dataset) -> None:
    """At every position but the first; latents whose mean is zero are unchanged where they are silent."""
    crosscoder, means = folded_crosscoder(), corpus_means()
    crosscoder.b_enc[:3] = -1e9
    prepared = prepare_task(task, MEAN, means)
    for batch in read_prompts(crosscoder, tiny_sites(), prepared, "mean", 4):
        for m, prompts in enumerate(batch.prompts):
            x, mean = prompts.state.activation, torch.from_numpy(means["mean_site_activation"].values[m])
            codes = batch.codes[:, 1:] + prompts.change[:, 1:]
            torch.testing.assert_close(codes, torch.from_numpy(means["mean_code"].values).expand_as(codes))
            torch.testing.assert_close(prompts.end[:, 1:], mean.expand_as(x[:, 1:]))
            assert (prompts.end[:, 0] == x[:, 0]).all() and (prompts.change[:, 0] == 0).all()
            changed = x + prompts.change @ prompts.weight + error_change(prompts)
            torch.testing.assert_close(changed, prompts.end, rtol=1e-4, atol=1e-4)
        assert (batch.prompts[0].change[:, 1:, :3] == 0).all() and (batch.prompts[0].change[:, 1:, 3:] != 0).all()


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("settings", [RESAMPLE, MEAN])
def test_batches_do_not_matter(settings: AttributionSettings, batch_size: int, task: xr.Dataset) -> None:
    crosscoder, where, prepared = folded_crosscoder(), tiny_sites(), prepare_task(task, settings, corpus_means())
    whole, parts = (
        measure_effects(crosscoder, where, prepared, settings.model_copy(update={"batch_size": size}))["effects"]
        for size in (64, batch_size)
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-6)
    assert whole.sizes["feature"] == FEATURES and abs(whole).max() > 1e-4


@pytest.mark.parametrize("intervention", ["mean", "resample"])
def test_effects_on_shuffled_prefixes(intervention: str, task: xr.Dataset) -> None:
    """The prefix of the partner is shuffled as the example's own is."""
    settings = AttributionSettings.model_validate(
        {"intervention": intervention, "estimator": "exact", "shuffled_tokens": True}
    )
    prepared = prepare_task(task, settings, corpus_means())
    shuffled = shuffle_tokens(prepared, settings.seed)
    if intervention == "resample":
        for example, length in enumerate(prepared["length"].values):
            before, after = (
                np.stack([of[name].values[example, 1:length] for name in ("token_id", "partner_id")], axis=1).tolist()
                for of in (prepared, shuffled)
            )
            assert sorted(before) == sorted(after)
    crosscoder, where = folded_crosscoder(), tiny_sites()
    found = measure_shuffled(crosscoder, where, prepared, settings)
    assert found is not None
    expected = slow_effects(crosscoder, where, shuffled, intervention)
    np.testing.assert_allclose(found["effects"], expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4
