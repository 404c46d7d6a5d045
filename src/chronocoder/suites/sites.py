"""Reading and replacing activations at a site of any decoder-only transformer.

Blocks are found by the model's structure: they are the list of modules of one class that holds the most parameters.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from chronocoder.devices import FLOAT32, computing
from chronocoder.errors import NonFiniteError, SiteError
from chronocoder.suites.patching import replaced_attribute
from chronocoder.suites.precision import logits_in_float32, overflow_remedy
from chronocoder.suites.suffix import empty_past, past_of

INNER_NAMES = {"mlp_out": ("mlp", "feed_forward", "ffn"), "attention_out": ("attn", "attention")}
_log = logging.getLogger(__name__)


class SiteState(NamedTuple):
    """The clean pass of a batch up to a site.

    Attributes:
        activation: what the site puts out, shape (batch, position, d_model).
        entry: what enters the block that is run again when a computation resumes here; for a residual site the
            activation itself.
    """

    activation: Float[Tensor, "batch position d_model"]
    entry: Float[Tensor, "batch position d_model"]


class _SiteRead(Exception):  # noqa: N818
    """Ends a forward pass once the site has been read."""


@dataclass(frozen=True)
class Site:
    """A place in one model where activations are read and replaced.

    Attributes:
        model: the model.
        name: for instance `residual.2`.
        blocks: its transformer blocks.
        index: the block that the site belongs to, from 0.
        module: the module whose output the activation is.
        block_returns_tuple: whether the blocks put out a tuple, the hidden state first.
        trimmable: modules of the last block that need the last position only, where only its logits are wanted.
        keeps_past: whether `resume` can go on from any position, with keys and values kept of those before it.
        precision: of the products of `resume`, as `computing` takes it, where weights are in float32; logits are in it
            in any case.
    """

    model: PreTrainedModel
    name: str
    blocks: nn.ModuleList
    index: int
    module: nn.Module
    block_returns_tuple: bool
    trimmable: tuple[nn.Module, ...]
    keeps_past: bool = False
    precision: str = FLOAT32

    @property
    def is_residual(self) -> bool:
        """Whether the activation is the whole residual stream after a block."""
        return self.module is self.blocks[self.index]

    @property
    def skipped(self) -> list[nn.Module]:
        """The blocks that are not run where a computation resumes here."""
        return list(self.blocks)[: self.index + 1 if self.is_residual else self.index]

    @torch.no_grad()
    def read(self, token_ids: Int[Tensor, "batch position"]) -> SiteState:
        """Run the model up to the site and no further."""
        seen: dict[str, Tensor] = {}

        def keep_entry(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            seen["entry"] = _hidden(arguments, keywords)

        def keep_activation(_module: nn.Module, _arguments: Any, output: Any) -> None:
            seen["activation"] = _first(output)
            raise _SiteRead

        block = self.blocks[self.index]
        with ExitStack() as hooks:
            hooks.callback(block.register_forward_pre_hook(keep_entry, with_kwargs=True).remove)
            hooks.callback(self.module.register_forward_hook(keep_activation).remove)
            with suppress(_SiteRead):
                self.model(input_ids=token_ids)
        activation = seen["activation"].to(self.model.device)  # where a model is spread, that of its embedding
        return SiteState(activation, activation if self.is_residual else seen["entry"].to(self.model.device))

    def resume(
        self,
        token_ids: Int[Tensor, "batch position"],
        activation: Float[Tensor, "batch position d_model"],
        entry: Float[Tensor, "batch position d_model"] | None = None,
        last: int | None = 1,
        answers: Int[Tensor, "batch answer"] | None = None,
        past: Cache | None = None,
    ) -> Float[Tensor, "batch position vocabulary"]:
        """Run the rest of the model with the site's activation replaced; differentiable in `activation`.

        Args:
            token_ids: the input, needed for its shape and for models that look at it again.
            activation: the replacement.
            entry: `SiteState.entry` of the clean pass; needed unless the site is residual.
            last: give the logits of so many of the last positions only; None: of all.
            answers: give the logits of these tokens only, shape (batch, position, answer).
            past: where only the positions from some place on are given, what `past_of` returns for those before it; or
                the `empty_past` of a clean pass, which keeps it.
        """
        start = activation if self.is_residual else entry
        with ExitStack() as patches:
            for place, block in enumerate(reversed(self.skipped)):
                patches.enter_context(self._skip(block, None if place else start))
            if not self.is_residual:
                patches.enter_context(_replaced_output(self.module, activation))
            if last is not None:
                patches.enter_context(last_positions_only(self.model, last, self.trimmable if last == 1 else ()))
            if answers is not None:
                patches.enter_context(_answers_only(self.model.get_output_embeddings(), answers))
            else:
                patches.enter_context(logits_in_float32(self.model.get_output_embeddings()))
            patches.enter_context(computing(self.precision, token_ids.device))
            keeping = {} if past is None else {"past_key_values": past, "use_cache": True}
            logits: Tensor = self.model(input_ids=token_ids, **keeping).logits
        return logits

    @contextmanager
    def _skip(self, block: nn.Module, replacement: Tensor | None) -> Iterator[None]:
        def forward(*arguments: Any, **keywords: Any) -> Any:
            hidden = _hidden(arguments, keywords) if replacement is None else replacement
            return (hidden,) if self.block_returns_tuple else hidden

        with replaced_attribute(block, "forward", forward):
            yield


def resolve_site(model: PreTrainedModel, name: str) -> Site:
    """Find a site in a model by the model's structure.

    Args:
        model: any decoder-only transformer of the transformers library.
        name: `residual.N`, `mlp_out.N` or `attention_out.N`, N the 0-based block.

    Raises:
        SiteError: the block does not exist, or its parts cannot be told from what they add to the residual stream.
        NonFiniteError: the model is damaged.
    """
    blocks = find_blocks(model)
    index = int(name.partition(".")[2])
    if index >= len(blocks):
        raise SiteError(
            f"site '{name}' is outside the model: {type(model).__name__} has blocks 0 to {len(blocks) - 1};"
            " choose one of them"
        )
    module = _find_module(model, name, blocks[index])
    site = Site(model, name, blocks, index, module, _returns_tuple(model, blocks[index]), _trimmable(model, blocks))
    return replace(site, keeps_past=_keeps_past(site))


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the transformer blocks: the list of modules of one class that holds the most parameters.

    Raises:
        SiteError: the model has no such list.
    """
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    if not lists:
        raise SiteError(f"{type(model).__name__} has no list of blocks; only stacked transformers are supported")
    return max(lists, key=lambda module: sum(parameter.numel() for parameter in module.parameters()))


@contextmanager
def last_positions_only(model: PreTrainedModel, count: int, modules: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Make a model compute logits of the last positions only: the output embedding is the widest product.

    Args:
        model: the model.
        count: how many positions.
        modules: further ones that are to see the last positions only.
    """

    def trim(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        last = _hidden(arguments, keywords)[:, -count:].contiguous()  # or each sequence becomes a product of its own
        return ((last, *arguments[1:]), keywords) if arguments else ((), {**keywords, "hidden_states": last})

    with ExitStack() as hooks:
        for module in (model.get_output_embeddings(), *modules):
            hooks.callback(module.register_forward_pre_hook(trim, with_kwargs=True).remove)
        yield


@contextmanager
def chosen_positions_only(
    model: PreTrainedModel, rows: Int[Tensor, " place"], positions: Int[Tensor, " place"]
) -> Iterator[None]:
    """Make a model compute logits of some positions of some rows only, as those of one sequence: (1, place, token)."""

    def choose(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        hidden = _hidden(arguments, keywords)
        return ((hidden[rows.to(hidden.device), positions.to(hidden.device)][None],), {})

    handle = model.get_output_embeddings().register_forward_pre_hook(choose, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _answers_only(output_embedding: nn.Module, answers: Int[Tensor, "batch answer"]) -> Iterator[None]:
    """Make an output embedding compute the logits of a few tokens; what a model does to logits later still applies.

    They are of float32 at least, whatever the weights are: a difference of two logits in half precision has few digits.
    """
    weight: Tensor = output_embedding.get_parameter("weight")
    bias: Tensor | None = getattr(output_embedding, "bias", None)
    answers = answers.to(weight.device)
    rows = weight[answers].to(torch.promote_types(weight.dtype, torch.float32))

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = hidden.to(rows) @ rows.transpose(1, 2)
            return logits if bias is None else logits + bias[answers][:, None]

    with replaced_attribute(output_embedding, "forward", forward):
        yield


def _find_module(model: PreTrainedModel, site: str, block: nn.Module) -> nn.Module:
    """Return the module whose output a site is, in its block."""
    kind = site.partition(".")[0]
    if kind == "residual":
        return block
    found = {part: _inner_module(block, part) for part in INNER_NAMES}
    modules = {part: module for part, module in found.items() if module is not None}
    if len(modules) < len(found):
        children = ", ".join(name for name, _ in block.named_children())
        raise SiteError(f"site '{site}': {type(block).__name__} has no such part, only {children}; use a residual site")
    if not _adds_up(model, block, list(modules.values())):
        raise SiteError(
            f"site '{site}': what attention and MLP of {type(block).__name__} put out does not add up to what the block"
            " adds to the residual stream; use a residual site"
        )
    return modules[kind]


@torch.no_grad()
def _trimmable(model: PreTrainedModel, blocks: nn.ModuleList) -> tuple[nn.Module, ...]:
    """Return what of the last block needs the last position only, where only the logits of that are wanted.

    The MLP and the output projection of attention act on each position by itself, and are added to the residual stream,
    to which a single position is broadcast: the other positions become wrong, and nothing reads them. Models that do
    something else are told by their logits.
    """
    token_ids = torch.arange(8, device=model.device).view(2, 4)
    projections: list[nn.Module] = []
    attention, mlp = (_inner_module(blocks[-1], part) for part in ("attention_out", "mlp_out"))
    with ExitStack() as hooks:
        for module in attention.modules() if attention is not None else ():
            if getattr(module, "weight", torch.empty(0)).dim() == 2:
                hooks.callback(module.register_forward_hook(lambda called, *_: projections.append(called)).remove)
        expected = model(input_ids=token_ids).logits[:, -1:]
    modules = tuple(module for module in (*projections[-1:], mlp) if module is not None)
    try:
        with last_positions_only(model, 1, modules):
            found = model(input_ids=token_ids).logits
        same = _are_close(found, expected, model.dtype)
    except RuntimeError:  # a single position does not fit in
        same = False
    if not same:
        _log.info("%s: its last block has to be evaluated at all positions", type(model).__name__)
    return modules if same else ()


@torch.no_grad()
def _keeps_past(site: Site) -> bool:
    """Say whether going on from a later position, with the clean past kept, gives the logits of the whole pass.

    Tried on two examples, of which each gets the other's activation from the second or from the last position on.
    """
    token_ids = torch.arange(8, device=site.model.device).view(2, 4)
    activation, entry = site.read(token_ids)
    rows, past = torch.tensor([1, 0, 1], device=token_ids.device), empty_past()
    try:
        site.resume(token_ids, activation, entry, past=past)
        for start in (1, 3):
            changed = activation.clone()
            changed[:, start:] = activation.flip(0)[:, start:]
            expected = site.resume(token_ids, changed, entry)[rows]
            ids, suffix, entering = (values[rows, start:] for values in (token_ids, changed, entry))
            found = site.resume(ids, suffix, entering, past=past_of(past, rows, start))
            if not _are_close(found, expected, site.model.dtype):
                raise ValueError("other logits")
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # other models keep something else
        _log.info("%s: effects of single features need all positions of a prefix", type(site.model).__name__)
        return False
    return True


def _are_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Say whether two ways of computing in a number format come to the same but for rounding."""
    tolerance = max(1e-5, 8 * torch.finfo(dtype).eps)
    relative = min(10 * tolerance, 0.05)
    return torch.allclose(found, expected, rtol=relative, atol=tolerance * float(expected.abs().max()))


def _inner_module(block: nn.Module, kind: str) -> nn.Module | None:
    for child_name, child in block.named_children():
        words = (child_name + " " + type(child).__name__).lower()
        if any(part in words for part in INNER_NAMES[kind]) and "norm" not in words and "dropout" not in words:
            return child
    return None


@torch.no_grad()
def _adds_up(model: PreTrainedModel, block: nn.Module, parts: list[nn.Module]) -> bool:
    """Say whether the block's output is its input plus the outputs of its parts: some add the residual themselves."""
    seen: dict[nn.Module, Tensor] = {}
    entry: list[Tensor] = []

    def keep(module: nn.Module, _arguments: Any, output: Any) -> None:
        seen[module] = _first(output).to(model.device)

    with ExitStack() as hooks:
        hooks.callback(
            block.register_forward_pre_hook(
                lambda _module, arguments, keywords: entry.append(_hidden(arguments, keywords).to(model.device)),
                with_kwargs=True,
            ).remove
        )
        for module in (block, *parts):
            hooks.callback(module.register_forward_hook(keep).remove)
        model(input_ids=torch.arange(3, device=model.device)[None])
    total = entry[0] + sum(seen[part] for part in parts)
    if not torch.isfinite(total).all():
        raise NonFiniteError(f"{model.name_or_path}: non-finite activations; {overflow_remedy(model)}")
    rounding = torch.finfo(model.dtype).eps  # of each term of the sum
    relative, absolute = max(1e-3, 4 * rounding), max(1e-4, 4 * rounding)
    return torch.allclose(total, seen[block], rtol=relative, atol=absolute * float(total.abs().max()))


def _returns_tuple(model: PreTrainedModel, block: nn.Module) -> bool:
    seen: list[bool] = []
    handle = block.register_forward_hook(lambda _module, _input, output: seen.append(isinstance(output, tuple)))
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _replaced_output(module: nn.Module, replacement: Tensor) -> Iterator[None]:
    def replace(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        own = replacement.to(_first(output).device)
        return (own, *output[1:]) if isinstance(output, tuple) else own

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _hidden(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return hidden


def _first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
