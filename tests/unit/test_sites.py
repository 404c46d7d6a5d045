"""Reading and replacing activations, on four architectures, against what transformers itself computes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import ARCHITECTURES, WIDTH, tiny_model
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from chronocoder.errors import NonFiniteError, SiteError
from chronocoder.suites.sites import Site, find_blocks, resolve_site

IDS = torch.tensor([[0, 5, 9, 12, 3], [0, 7, 7, 1, 2]])
ANSWERS = torch.tensor([[4, 299, 4], [17, 0, 5]])
SITES = ["residual.0", "residual.1", "residual.2", "mlp_out.0", "mlp_out.1", "attention_out.0", "attention_out.2"]


def test_residual_is_the_hidden_state_that_transformers_returns(any_model: PreTrainedModel) -> None:
    hidden = any_model(input_ids=IDS, output_hidden_states=True).hidden_states
    for block in (0, 1):  # the last one is normalised in what transformers returns
        torch.testing.assert_close(resolve_site(any_model, f"residual.{block}").read(IDS).activation, hidden[block + 1])


@pytest.mark.parametrize("name", SITES)
def test_resuming_from_the_unchanged_activation_gives_the_models_logits(any_model: PreTrainedModel, name: str) -> None:
    site = resolve_site(any_model, name)
    state = site.read(IDS)
    expected = any_model(input_ids=IDS).logits
    torch.testing.assert_close(site.resume(IDS, state.activation, state.entry, last=None), expected)
    torch.testing.assert_close(site.resume(IDS, state.activation, state.entry), expected[:, -1:])
    torch.testing.assert_close(any_model(input_ids=IDS).logits, expected)  # nothing is left patched


@pytest.mark.parametrize("name", SITES)
def test_resuming_from_a_changed_activation_equals_a_hook_that_changes_it(
    any_model: PreTrainedModel, name: str
) -> None:
    site = resolve_site(any_model, name)
    state = site.read(IDS)
    changed = state.activation + torch.randn_like(state.activation)

    def replace_output(_module: object, _input: object, output: object) -> object:
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = site.place.module.register_forward_hook(replace_output)
    expected = any_model(input_ids=IDS).logits
    handle.remove()
    torch.testing.assert_close(site.resume(IDS, changed, state.entry, last=None), expected)
    assert not torch.allclose(expected, any_model(input_ids=IDS).logits)


def test_gradient_reaches_the_activation_only() -> None:
    site = resolve_site(tiny_model("gpt_neox"), "residual.0")
    activation = site.read(IDS).activation.requires_grad_()
    (gradient,) = torch.autograd.grad(site.resume(IDS, activation).sum(), activation)
    assert gradient.abs().sum(dim=2).gt(0).all()


def capped_model() -> PreTrainedModel:
    """Return a model with tied embeddings whose logits are capped softly at 0.5."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Gemma2Config(vocab_size=300, num_hidden_layers=3, head_dim=8, final_logit_softcapping=0.5, **sizes)
    config._attn_implementation, config.use_cache = "eager", False
    model = Gemma2ForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gemma2"])
@pytest.mark.parametrize("biased", [False, True])
def test_logits_of_answers_are_those_of_the_whole_vocabulary(architecture: str, biased: bool) -> None:
    model = capped_model() if architecture == "gemma2" else tiny_model(architecture)
    if biased:
        model.get_output_embeddings().bias = torch.nn.Parameter(torch.randn(300), requires_grad=False)
    site = resolve_site(model, "residual.0")
    activation = site.read(IDS).activation.requires_grad_()
    whole = site.resume(IDS, activation)[:, 0].gather(1, ANSWERS)
    chosen = site.resume(IDS, activation, answers=ANSWERS)
    torch.testing.assert_close(chosen, whole[:, None])
    weights = torch.randn(2, 3)
    expected = torch.autograd.grad((whole * weights).sum(), activation)
    found = torch.autograd.grad((chosen[:, 0] * weights).sum(), activation)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected[0].abs().max()))
    assert site.resume(IDS, activation).shape == (2, 1, 300)  # nothing is left patched


def test_logits_of_answers_are_capped() -> None:
    model = capped_model()
    site = resolve_site(model, "residual.0")
    activation = site.read(IDS).activation
    logits = site.resume(IDS, activation, answers=ANSWERS)
    model.config.final_logit_softcapping = None
    raw = site.resume(IDS, activation, answers=ANSWERS)
    torch.testing.assert_close(logits, 0.5 * torch.tanh(raw / 0.5))
    assert raw.abs().max() > 0.5


def values_and_gradient(site: Site, activation: torch.Tensor, entry: torch.Tensor) -> list[torch.Tensor]:
    leaf = activation.clone().requires_grad_()
    logits = site.resume(IDS, leaf, entry, answers=ANSWERS)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), leaf)]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gemma2"])
@pytest.mark.parametrize("kind", ["residual", "mlp_out", "attention_out"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_last_block_at_the_last_position_equals_all_of_it(architecture: str, kind: str, block: int) -> None:
    model = capped_model() if architecture == "gemma2" else tiny_model(architecture)
    site = resolve_site(model, f"{kind}.{block}")
    assert len(site.trimmable) == 2
    state = site.read(IDS)
    changed = state.activation + torch.randn_like(state.activation)
    found = values_and_gradient(site, changed, state.entry)
    expected = values_and_gradient(replace(site, trimmable=()), changed, state.entry)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


KEYS_AND_VALUES = {
    "gpt_neox": {"attention.query_key_value"},
    "llama": {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    "gpt2": {"attn.c_attn"},
    "bloom": {"self_attention.query_key_value"},
}


def test_only_the_last_position_reaches_the_last_blocks_products(any_model: PreTrainedModel) -> None:
    site = resolve_site(any_model, "residual.0")
    positions: dict[str, int] = {}
    for name, module in site.blocks[-1].named_modules():
        if any(parameter.dim() == 2 for parameter in module.parameters(recurse=False)):
            module.register_forward_hook(
                lambda _module, _input, output, name=name: positions.update({name: output.shape[1]})
            )
    site.resume(IDS, site.read(IDS).activation)
    whole = {name for name, count in positions.items() if count > 1}
    assert whole == KEYS_AND_VALUES[any_model.config.model_type] and len(positions) > len(whole)


def mixing_model(mix: Callable[[torch.Tensor], torch.Tensor]) -> PreTrainedModel:
    """Return a model whose last MLP does something to its input first."""
    model = tiny_model("gpt_neox")
    mlp = model.gpt_neox.layers[-1].mlp
    forward = mlp.forward
    mlp.forward = lambda hidden: forward(mix(hidden))
    return model


def test_last_block_that_needs_all_positions_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert resolve_site(mixing_model(lambda hidden: hidden.cumsum(dim=1)), "residual.0").trimmable == ()
    assert "GPTNeoXForCausalLM: its last block has to be evaluated at all positions" in caplog.text


def test_last_mlp_that_does_not_take_a_single_position_sees_all() -> None:
    model = mixing_model(lambda hidden: hidden.view(2, 4, WIDTH) if len(hidden) == 2 else hidden)
    assert resolve_site(model, "residual.0").trimmable == (model.gpt_neox.layers[-1].attention.dense,)


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
