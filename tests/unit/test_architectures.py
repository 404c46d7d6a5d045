"""Every site of every architecture, against plain hooks on modules that are known by name, and transformers itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from architectures import BLOCKS, HEADS, TABLE, WIDTH, build
from torch import Tensor, nn
from transformers import PreTrainedModel

from chronocoder.errors import SiteError
from chronocoder.suites.inner_sites import find_parts
from chronocoder.suites.sites import Site, find_blocks, resolve_site
from chronocoder.suites.suffix import empty_past, past_of

IDS = torch.tensor([[3, 5, 9, 12, 3, 8], [4, 7, 7, 1, 2, 30]])
STREAM = ["embedding", "residual.0", "residual.1", "final"]
INNER = [f"{kind}.{block}" for kind in ("attention_out", "mlp_out", "mlp_in") for block in (0, 2)]
HEAD_SITES = ["head_out.0.3", "head_out.2.1"]
CASES = [
    (architecture, site)
    for architecture, facts in TABLE.items()
    for site in [*STREAM, *(INNER if facts.names else []), *(HEAD_SITES if facts.names else [])]
]
build_once = cache(build)


class Oracle:
    """The place of a site by the names of modules, and what a function makes of the tensor there in a whole pass."""

    def __init__(self, architecture: str, site: str) -> None:
        self.model, self.facts = build_once(architecture), TABLE[architecture]
        kind, *numbers = site.split(".")
        block = {"embedding": 0, "final": BLOCKS - 1}.get(kind) if not numbers else int(numbers[0])
        of_block = find_blocks(self.model)[block]
        names = self.facts.names
        paths = {} if names is None else {"attention_out": names.attention, "mlp_out": names.mlp}
        inputs = {} if names is None else {"mlp_in": names.mlp_in, "head_out": names.projection}
        self.module = of_block.get_submodule({**paths, **inputs}.get(kind, ""))
        self.on_input = kind in inputs or kind == "embedding"
        self.scale = self.facts.multiplier if kind in paths else 1.0
        width = self.facts.head_width
        self.columns = slice(int(numbers[1]) * width, int(numbers[1]) * width + width) if kind == "head_out" else ...

    @contextmanager
    def edited(self, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        def changed(tensor: Tensor) -> Tensor:
            whole = tensor.clone().reshape(*IDS.shape, -1)
            whole[..., self.columns] = edit(whole[..., self.columns] * self.scale) / self.scale
            return whole.reshape(tensor.shape)

        def before(_module: nn.Module, arguments: tuple, keywords: dict) -> tuple:
            if arguments:
                return (changed(arguments[0]), *arguments[1:]), keywords
            return (), {**keywords, "hidden_states": changed(keywords["hidden_states"])}

        def after(_module: nn.Module, _arguments: tuple, output: object) -> object:
            return (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)

        if self.on_input:
            handle = self.module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = self.module.register_forward_hook(after)
        yield
        handle.remove()

    def activation(self) -> Tensor:
        seen: list[Tensor] = []
        with self.edited(lambda tensor: seen.append(tensor.clone()) or tensor):
            self.model(input_ids=IDS)
        return seen[0]

    def logits(self, activation: Tensor) -> Tensor:
        with self.edited(lambda _: activation):
            return self.model(input_ids=IDS).logits


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@cache
def resolved(architecture: str, site: str) -> Site:
    return resolve_site(build_once(architecture), site)


@pytest.mark.parametrize("architecture", TABLE)
def test_stream_is_what_transformers_returns(architecture: str) -> None:
    model = build_once(architecture)
    hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states
    if architecture == "mamba":  # which leaves out the embedding
        hidden = (model.get_input_embeddings()(IDS), *hidden)
    for number, site in enumerate(STREAM[:-1]):  # the last one is normalised in what transformers returns
        assert torch.equal(resolved(architecture, site).read(IDS).activation, hidden[number])


@pytest.mark.parametrize(
    ("architecture", "block"), [(name, block) for name, facts in TABLE.items() if facts.names for block in (0, 2)]
)
def test_attention_and_mlp_add_up_to_what_a_block_adds(architecture: str, block: int) -> None:
    attention, mlp = (resolved(architecture, f"{kind}.{block}").read(IDS) for kind in ("attention_out", "mlp_out"))
    after = resolved(architecture, "final" if block == BLOCKS - 1 else f"residual.{block}").read(IDS).activation
    assert_near(attention.entry + attention.activation + mlp.activation, after)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", [name for name, facts in TABLE.items() if facts.names])
def test_attention_and_mlp_are_found_in_half_precision(architecture: str, dtype: torch.dtype) -> None:
    model = build(architecture)
    block = find_blocks(model)[1]
    expected = find_parts(model, block)
    found = find_parts(model.to(dtype), block)
    assert found == expected and found.mlp.scale == TABLE[architecture].multiplier


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_site_is_read_and_replaced_as_hooks_do(architecture: str, name: str) -> None:
    site, oracle = resolved(architecture, name), Oracle(architecture, name)
    state, clean = site.read(IDS), oracle.model(input_ids=IDS).logits
    assert torch.equal(state.activation, oracle.activation())
    assert state.activation.shape == (*IDS.shape, site.width)
    assert site.width == (TABLE[architecture].head_width if name.startswith("head_out") else WIDTH)
    unchanged = site.resume(IDS, state.activation, state.entry, last=None)
    torch.testing.assert_close(unchanged, clean, rtol=0, atol=1e-6 * float(clean.abs().max()))
    torch.manual_seed(0)
    changed = state.activation + torch.randn_like(state.activation) * state.activation.std()
    logits = oracle.logits(changed)
    assert not torch.allclose(logits[:, -1], clean[:, -1], rtol=1e-3)
    assert_near(site.resume(IDS, changed, state.entry, last=None), logits)
    assert_near(site.resume(IDS, changed, state.entry), logits[:, -1:])
    assert torch.equal(oracle.model(input_ids=IDS).logits, clean)  # nothing is left patched


@pytest.mark.parametrize(("architecture", "name"), [case for case in CASES if case[0] != "mamba"])
def test_going_on_from_a_position_with_the_clean_past_equals_the_whole(architecture: str, name: str) -> None:
    site, oracle = resolved(architecture, name), Oracle(architecture, name)
    assert site.keeps_past
    activation, entry = site.read(IDS)
    past, rows = empty_past(), torch.tensor([1, 0, 1])
    site.resume(IDS, activation, entry, past=past)
    for start in (1, 4):
        changed = activation.clone()
        changed[:, start:] += torch.randn_like(changed[:, start:]) * activation.std()
        expected = oracle.logits(changed)[rows, start:]
        taken = [values[rows, start:] for values in (IDS, changed, entry)]
        assert_near(site.resume(*taken, last=None, past=past_of(past, rows, start)), expected)


@pytest.mark.parametrize(("architecture", "name"), [("falcon", "mlp_out.1"), ("granite", "attention_out.0")])
def test_gradient_is_that_of_the_whole_pass_and_reaches_the_activation_only(architecture: str, name: str) -> None:
    site, oracle = resolved(architecture, name), Oracle(architecture, name)
    state = site.read(IDS)
    leaf = state.activation.clone().requires_grad_()
    found, expected = (
        torch.autograd.grad(logits.square().sum(), leaf)[0]
        for logits in (site.resume(IDS, leaf, state.entry, last=None), oracle.logits(leaf))
    )
    assert_near(found, expected)
    assert torch.equal(leaf, state.activation) and found.abs().sum(dim=2).gt(0).all()


@pytest.mark.parametrize("name", ["attention_out.1", "mlp_out.1", "mlp_in.1", "head_out.1.0"])
def test_model_without_attention_names_the_sites_it_has(name: str) -> None:
    with pytest.raises(
        SiteError,
        match=rf"site '{name}': what MambaBlock adds to the residual stream is not the sum of one attention and one MLP"
        r" with a single input; use embedding, residual.1 or final",
    ):
        resolve_site(build_once("mamba"), name)
    assert not resolved("mamba", "residual.1").keeps_past


def test_block_that_normalises_its_sum_is_told() -> None:
    model = build("bloom", apply_residual_connection_post_layernorm=True)
    with pytest.raises(SiteError, match="site 'mlp_out.1': what BloomBlock adds to the residual stream is not the sum"):
        resolve_site(model, "mlp_out.1")


def test_head_outside_the_model_names_the_heads() -> None:
    with pytest.raises(
        SiteError, match=rf"site 'head_out.1.4': LlamaForCausalLM has heads 0 to {HEADS - 1}; choose one of them"
    ):
        resolve_site(build_once("llama"), "head_out.1.4")


def test_heads_of_unequal_number_and_width_are_told() -> None:
    model: PreTrainedModel = build("llama")
    model.config.num_attention_heads = 5
    with pytest.raises(
        SiteError, match="site 'head_out.1.4': the output projection of LlamaForCausalLM takes 16 columns, which are"
    ):
        resolve_site(model, "head_out.1.4")
