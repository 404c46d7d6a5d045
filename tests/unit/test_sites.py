"""Reading and replacing activations, on four architectures, against what transformers itself computes."""

import pytest
import torch
from conftest import tiny_model
from transformers import PreTrainedModel

from chronocoder.errors import NonFiniteError, SiteError
from chronocoder.suites.sites import Site, find_blocks, resolve_site

IDS = torch.tensor([[0, 5, 9, 12, 3], [0, 7, 7, 1, 2]])
SITES = ["residual.0", "residual.1", "residual.2", "mlp_out.0", "mlp_out.1", "attention_out.0", "attention_out.2"]


def resolve_where_possible(model: PreTrainedModel, name: str) -> Site:
    """Bloom has residual sites only."""
    return resolve_site(model, name if model.config.model_type != "bloom" else f"residual.{name[-1]}")


def test_residual_is_the_hidden_state_that_transformers_returns(any_model: PreTrainedModel) -> None:
    hidden = any_model(input_ids=IDS, output_hidden_states=True).hidden_states
    for block in (0, 1):  # the last one is normalised in what transformers returns
        torch.testing.assert_close(resolve_site(any_model, f"residual.{block}").read(IDS).activation, hidden[block + 1])


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "gpt2"])
@pytest.mark.parametrize("block", [0, 2])
def test_attention_and_mlp_are_what_a_block_adds_to_the_residual_stream(architecture: str, block: int) -> None:
    model = tiny_model(architecture)
    parts = [resolve_site(model, f"{kind}.{block}").read(IDS) for kind in ("attention_out", "mlp_out")]
    after = resolve_site(model, f"residual.{block}").read(IDS).activation
    torch.testing.assert_close(parts[0].entry + parts[0].activation + parts[1].activation, after)


def test_parts_that_add_the_residual_themselves_are_refused() -> None:
    with pytest.raises(SiteError, match="site 'mlp_out.1': what attention and MLP of BloomBlock put out does not add"):
        resolve_site(tiny_model("bloom"), "mlp_out.1")


@pytest.mark.parametrize("name", SITES)
def test_resuming_from_the_unchanged_activation_gives_the_models_logits(any_model: PreTrainedModel, name: str) -> None:
    site = resolve_where_possible(any_model, name)
    state = site.read(IDS)
    expected = any_model(input_ids=IDS).logits
    torch.testing.assert_close(site.resume(IDS, state.activation, state.entry, last_only=False), expected)
    torch.testing.assert_close(site.resume(IDS, state.activation, state.entry), expected[:, -1:])
    torch.testing.assert_close(any_model(input_ids=IDS).logits, expected)  # nothing is left patched


@pytest.mark.parametrize("name", SITES)
def test_resuming_from_a_changed_activation_equals_a_hook_that_changes_it(
    any_model: PreTrainedModel, name: str
) -> None:
    site = resolve_where_possible(any_model, name)
    state = site.read(IDS)
    changed = state.activation + torch.randn_like(state.activation)

    def replace(_module: object, _input: object, output: object) -> object:
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = site.module.register_forward_hook(replace)
    expected = any_model(input_ids=IDS).logits
    handle.remove()
    torch.testing.assert_close(site.resume(IDS, changed, state.entry, last_only=False), expected)
    assert not torch.allclose(expected, any_model(input_ids=IDS).logits)


def test_gradient_reaches_the_activation_only() -> None:
    site = resolve_site(tiny_model("gpt_neox"), "residual.0")
    activation = site.read(IDS).activation.requires_grad_()
    (gradient,) = torch.autograd.grad(site.resume(IDS, activation).sum(), activation)
    assert gradient.abs().sum(dim=2).gt(0).all()


def test_blocks_are_found_by_structure(any_model: PreTrainedModel) -> None:
    assert len(find_blocks(any_model)) == 3


@pytest.mark.parametrize("name", ["residual.3", "mlp_out.17"])
def test_site_outside_the_model_names_the_blocks(any_model: PreTrainedModel, name: str) -> None:
    with pytest.raises(SiteError, match=rf"site '{name}' is outside the model: .* has blocks 0 to 2; choose one"):
        resolve_site(any_model, name)


def test_damaged_model_is_named() -> None:
    model = tiny_model("gpt_neox")
    model.gpt_neox.layers[0].mlp.dense_4h_to_h.bias.data[0] = torch.nan
    model.name_or_path = "checkpoints/step9"
    with pytest.raises(NonFiniteError, match="checkpoints/step9: non-finite activations"):
        resolve_site(model, "mlp_out.1")
