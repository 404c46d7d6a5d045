"""Features changed alone from their first changed position on, against the whole prefix run for each of them."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import folded_crosscoder, slow_effects, tiny_sites
from tiny import ARCHITECTURES, VOCABULARY, tiny_model
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.controls import draw_directions
from chronocoder.attribution.effects import Prompts, logits, metric
from chronocoder.attribution.exact import RECOMPUTED, changed_alone, changed_at_positions, exact
from chronocoder.attribution.prompts import read_prompts
from chronocoder.config import AttributionSettings
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.suites.suffix import empty_past, past_of
from chronocoder.tasks.readout import NextToken
from chronocoder.tasks.tokenise import PADDING

IDS = torch.tensor([[0, 5, 9, 12, 3, 7], [0, 7, 7, 1, 2, 4], [3, 1, 4, 1, 5, 9]])
SITES = ["residual.0", "residual.1", "residual.2", "mlp_out.0", "mlp_out.2", "attention_out.1", "embedding", "mlp_in.1"]
ROWS = torch.tensor([2, 0, 0, 1])


def sliding_model() -> PreTrainedModel:
    """Return a model whose attention sees the last three positions only."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = MistralForCausalLM(
        MistralConfig(vocab_size=VOCABULARY, num_hidden_layers=3, sliding_window=3, pad_token_id=None, **sizes)
    )
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
@pytest.mark.parametrize("name", SITES)
def test_going_on_from_a_position_equals_the_whole_pass(architecture: str, name: str) -> None:
    model = sliding_model() if architecture == "mistral" else tiny_model(architecture)
    site = resolve_site(model, name)
    assert site.keeps_past
    state, past = site.read(IDS), empty_past()
    clean = site.resume(IDS, state.activation, state.entry, last=None, past=past)
    torch.testing.assert_close(clean, model(input_ids=IDS).logits)
    for start in range(6):
        changed = state.activation[ROWS]
        changed[:, start:] += torch.randn_like(changed[:, start:])
        expected = site.resume(IDS[ROWS], changed, state.entry[ROWS], last=None)[:, start:]
        given = (IDS[ROWS, start:], changed[:, start:], state.entry[ROWS, start:])
        found = site.resume(*given, last=None, past=past_of(past, ROWS, start))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        found = site.resume(*given, answers=IDS[ROWS, :2], past=past_of(past, ROWS, start))
        torch.testing.assert_close(found[:, 0], expected[:, -1].gather(1, IDS[ROWS, :2]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(input_ids=IDS).logits, clean)  # nothing is left patched


@pytest.mark.parametrize("intervention", ["zero", "counterfactual"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", SITES)
def test_effects_of_features_and_controls_equal_whole_prefixes(
    architecture: str, name: str, intervention: str, task: xr.Dataset
) -> None:
    sites = [resolve_site(tiny_model(architecture, seed), name) for seed in (0, 1)]
    settings = AttributionSettings(batch_size=3, random_directions=2, random_features=5)
    crosscoder = folded_crosscoder(0.3, sites[0].name)
    directions = draw_directions(crosscoder, settings)
    largest = []
    for batch in read_prompts(crosscoder, sites, with_counterfactuals(task), intervention, 128):
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            prompts = directions.added_to(everything, everything, number)
            found = exact(site, prompts, settings).features
            torch.testing.assert_close(found, whole_prefixes(site, prompts), rtol=0, atol=1e-5)
            largest.append(found.abs().max(dim=0).values)
    assert torch.stack(largest)[:, -10:].max() > 1e-4


def with_counterfactuals(task: xr.Dataset) -> xr.Dataset:
    """Return the task with prefixes of the same length, each token replaced by another, as counterfactuals."""
    ids = task["token_id"].values
    others = np.where(ids == PADDING, PADDING, (ids * 7 + 3) % VOCABULARY)
    return task.assign(
        counterfactual_id=(task["token_id"].dims, others.astype(ids.dtype)),
        has_counterfactual=("example", [True] * task.sizes["example"]),
    )


@torch.no_grad()
def whole_prefixes(site: Site, prompts: Prompts) -> torch.Tensor:
    """Return effects with one feature changed in all examples at a time, at all positions of the prefix."""
    x = prompts.state.activation
    clean = metric(site, prompts, x[None])[0]
    effects = []
    for change, row in zip(prompts.change.unbind(dim=2), prompts.weight, strict=True):
        effects.append(metric(site, prompts, (x + change[..., None] * row)[None])[0] - clean)
    return torch.stack(effects, dim=1)


def prompts_with(change: torch.Tensor) -> tuple[Site, Prompts]:
    """Return a site and prompts at it with a given change (batch, position, feature)."""
    site = resolve_site(tiny_model("gpt_neox"), "residual.0")
    ids = torch.arange(change[..., 0].numel()).view(change.shape[:2])
    state = site.read(ids)
    rows = torch.randn(change.shape[2], 16)
    return site, Prompts(torch.arange(len(ids)), ids, NextToken(ids[:, :2]), state, state.activation, change, rows)


def positions_run(site: Site, run: Callable[[], object]) -> list[tuple[int, int]]:
    """Return how many rows and positions reach the block after the site, for each pass."""
    seen: list[tuple[int, int]] = []
    with site.blocks[1].register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape[:2]))):
        run()
    return seen


def test_a_feature_of_the_last_position_takes_one_token() -> None:
    change = torch.zeros(3, 6, 40)
    change[:, -1] = 1
    site, prompts = prompts_with(change)
    seen = positions_run(site, lambda: exact(site, prompts, AttributionSettings(batch_size=64)))
    assert sorted(seen) == [(3, 6), (3, 6), (120, 1)]  # clean, without the error term, and 120 features


@pytest.mark.parametrize("sequences", [1, 4, 64])
@pytest.mark.parametrize("of", [changed_alone, changed_at_positions])
def test_batches_have_each_change_once_and_keep_to_the_budget(of: Callable[..., object], sequences: int) -> None:
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(4, 6, 20, generator=generator) * (torch.rand(4, 6, 20, generator=generator) < 0.3)
    _, prompts = prompts_with(change)
    batches = list(of(prompts, sequences))
    places = torch.cat([torch.stack([rows.examples, rows.positions, rows.features], dim=1) for rows in batches])
    expected = [
        (example, position, feature)
        for example, position, feature in change.nonzero().tolist()
        if of is changed_at_positions or not change[example, :position, feature].any()
    ]
    assert sorted(map(tuple, places.tolist())) == expected
    for rows in batches:
        count, positions, _ = rows.activation.shape
        assert positions == 6 - rows.start and count * positions <= max(sequences * 6, positions)
        recomputed = int((rows.positions - rows.start).sum())
        assert rows.start == rows.positions.min() and recomputed <= RECOMPUTED * sequences * 6
    if sequences == 64:
        assert any(len(rows.positions.unique()) > 1 for rows in batches)


def test_models_that_keep_no_past_run_whole_prefixes(task: xr.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """A block that ignores the past gives other logits; one that is not given it raises an error."""
    expected = slow_effects(folded_crosscoder(), tiny_sites(), task)
    for spoil in (lambda keywords: keywords.update(layer_past=None), lambda keywords: keywords.pop("layer_past")):
        models = [tiny_model("gpt_neox", seed) for seed in (0, 1)]
        for block in (block for model in models for block in model.gpt_neox.layers):

            def forward(*arguments: object, own: Callable[..., object] = block.forward, **keywords: object) -> object:
                spoil(keywords)
                return own(*arguments, **keywords)

            block.forward = forward
        with caplog.at_level(logging.INFO):
            sites = [resolve_site(model, "residual.1") for model in models]
        assert not any(site.keeps_past for site in sites)
        assert "GPTNeoXForCausalLM: effects of single features need all positions of a prefix" in caplog.text
        found = measure_effects(folded_crosscoder(), sites, task, AttributionSettings(estimator="exact", batch_size=4))
        np.testing.assert_allclose(found["effects"], expected, rtol=1e-3, atol=1e-5)


def test_effects_do_not_depend_on_batches_or_on_the_past(task: xr.Dataset) -> None:
    where = tiny_sites()
    whole = [replace(site, keeps_past=False) for site in where]
    found = [
        measure_effects(folded_crosscoder(), sites, task, AttributionSettings(estimator="exact", batch_size=size))
        for sites in (where, whole)
        for size in (1, 5, 128)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other["effects"], found[0]["effects"], rtol=0, atol=1e-6)


def test_logits_keep_the_past_of_a_clean_pass_only_where_asked() -> None:
    site, prompts = prompts_with(torch.zeros(2, 5, 3))
    past = empty_past()
    logits(site, prompts, prompts.state.activation[None], past=past)
    assert [tuple(layer.keys.shape) for layer in past.layers[1:]] == [(2, 2, 5, 8)] * 2
    assert past.get_seq_length() == 0  # the blocks up to the site have none
