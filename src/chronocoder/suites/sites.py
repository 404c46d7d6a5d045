"""Reading and replacing activations at a site of any decoder-only transformer.

Blocks are found by the model's structure: they are the list of modules of one class that holds the most parameters.
Attention and MLP are found by `chronocoder.suites.inner_sites`.
"""

import logging
from collections.abc import Iterator
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
from chronocoder.site_names import parse_site
from chronocoder.suites.inner_sites import Parts, find_parts
from chronocoder.suites.logits import answers_only, last_positions_only
from chronocoder.suites.patching import replaced_attribute
from chronocoder.suites.places import Place, first_input
from chronocoder.suites.precision import logits_in_float32
from chronocoder.suites.suffix import empty_past, past_of

_log = logging.getLogger(__name__)


class SiteState(NamedTuple):
    """The clean pass of a batch up to a site.

    Attributes:
        activation: what is at the site, shape (batch, position, d_model).
        entry: what enters the block that is run again when a computation resumes here; for a site that is the stream
            the activation itself.
    """

    activation: Float[Tensor, "batch position d_model"]
    entry: Float[Tensor, "batch position n"]


class _SiteRead(Exception):  # noqa: N818
    """Ends a forward pass once the site has been read."""


@dataclass(frozen=True)
class Site:
    """A place in one model where activations are read and replaced.

    Attributes:
        model: the model.
        name: for instance `residual.2`.
        blocks: its transformer blocks.
        index: the block that the site belongs to, from 0; -1 for what enters the first one.
        place: where the activation passes.
        block_returns_tuple: whether the blocks put out a tuple, the hidden state first.
        trimmable: modules of the last block that need the last position only, where only its logits are wanted.
        width: width of the activation.
        keeps_past: whether `resume` can go on from any position, with keys and values kept of those before it.
        precision: of the products of `resume`, as `computing` takes it, where weights are in float32; logits are in it
            in any case.
    """

    model: PreTrainedModel
    name: str
    blocks: nn.ModuleList
    index: int
    place: Place
    block_returns_tuple: bool
    trimmable: tuple[nn.Module, ...]
    width: int = 0
    keeps_past: bool = False
    precision: str = FLOAT32

    @property
    def is_residual(self) -> bool:
        """Whether the activation is the whole residual stream, before or after a block."""
        return parse_site(self.name).is_stream

    @property
    def skipped(self) -> list[nn.Module]:
        """The blocks that are not run where a computation resumes here."""
        return list(self.blocks)[: self.index + 1 if self.is_residual else self.index]

    @torch.no_grad()
    def read(self, token_ids: Int[Tensor, "batch position"]) -> SiteState:
        """Run the model up to the site and no further."""
        seen: dict[str, Tensor] = {}

        def keep_entry(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            seen["entry"] = first_input(arguments, keywords)

        def keep_activation(tensor: Tensor) -> Tensor:
            seen["activation"] = self.place.activation(tensor).reshape(*token_ids.shape, -1)
            raise _SiteRead

        block = self.blocks[max(self.index, 0)]
        with ExitStack() as hooks:
            hooks.callback(block.register_forward_pre_hook(keep_entry, with_kwargs=True).remove)
            hooks.enter_context(self.place.edited(keep_activation))
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
            entry: `SiteState.entry` of the clean pass; needed unless the site is the stream.
            last: give the logits of so many of the last positions only; None: of all.
            answers: give the logits of these tokens only, shape (batch, position, answer).
            past: where only the positions from some place on are given, what `past_of` returns for those before it; or
                the `empty_past` of a clean pass, which keeps it.
        """
        start = activation if self.is_residual else entry
        with ExitStack() as patches:
            for distance, block in enumerate(reversed(self.skipped)):
                patches.enter_context(self._skip(block, None if distance else start))
            if not (self.is_residual and self.skipped):
                patches.enter_context(self.place.replaced(activation))
            if last is not None:
                patches.enter_context(last_positions_only(self.model, last, self.trimmable if last == 1 else ()))
            if answers is not None:
                patches.enter_context(answers_only(self.model.get_output_embeddings(), answers))
            else:
                patches.enter_context(logits_in_float32(self.model.get_output_embeddings()))
            patches.enter_context(computing(self.precision, token_ids.device))
            keeping = {} if past is None else {"past_key_values": past, "use_cache": True}
            logits: Tensor = self.model(input_ids=token_ids, **keeping).logits
        return logits

    @contextmanager
    def _skip(self, block: nn.Module, replacement: Tensor | None) -> Iterator[None]:
        def forward(*arguments: Any, **keywords: Any) -> Any:
            hidden = first_input(arguments, keywords) if replacement is None else replacement
            return (hidden,) if self.block_returns_tuple else hidden

        with replaced_attribute(block, "forward", forward):
            yield


def resolve_site(model: PreTrainedModel, name: str) -> Site:
    """Find a site in a model by the model's structure.

    Args:
        model: any decoder-only transformer of the transformers library.
        name: `embedding`, the stream that enters the first block; `residual.N`, the stream after block N, from 0;
            `final`, the stream after the last block, before the norm; `attention_out.N` and `mlp_out.N`, what attention
            and MLP add to the stream; `mlp_in.N`, what enters the MLP, after its norm; `head_out.N.H`, what head H of
            attention puts out, before the output projection.

    Raises:
        SiteError: the block or the head does not exist, or attention and MLP cannot be told from what they add to the
            residual stream.
        NonFiniteError: the model is damaged.
    """
    blocks, parsed = find_blocks(model), parse_site(name)
    index = parsed.block(len(blocks))
    if index >= len(blocks):
        raise SiteError(
            f"site '{name}' is outside the model: {type(model).__name__} has blocks 0 to {len(blocks) - 1};"
            " choose one of them"
        )
    block = blocks[max(index, 0)]
    place = _stream_place(block, index) if parsed.is_stream else _inner_place(model, block, name)
    site = Site(model, name, blocks, index, place, _returns_tuple(model, block), _trimmable(model, blocks))
    width = site.read(_probe(model)).activation.shape[-1]
    return replace(site, width=width, keeps_past=_keeps_past(site))


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


def _stream_place(block: nn.Module, index: int) -> Place:
    return Place(block, "input" if index < 0 else "output")


def _inner_place(model: PreTrainedModel, block: nn.Module, name: str) -> Place:
    parsed, parts = parse_site(name), find_parts(model, block)
    found = None if parts is None else _place_in(parts, model, name)
    if found is None:
        raise SiteError(
            f"site '{name}': what {type(block).__name__} adds to the residual stream is not the sum of one attention"
            f" and one MLP with a single input; use embedding, residual.{parsed.number} or final"
        )
    return found


def _place_in(parts: Parts, model: PreTrainedModel, name: str) -> Place | None:
    kind, _, head = parse_site(name)
    if head is not None:
        return _head_place(parts, model, name, head)
    return {"attention_out": parts.attention, "mlp_out": parts.mlp, "mlp_in": parts.mlp_in}[kind]


def _head_place(parts: Parts, model: PreTrainedModel, name: str, head: int) -> Place:
    """Return a head's columns of what enters the output projection, where heads lie side by side in order."""
    heads = int(model.config.get_text_config().num_attention_heads)
    width, rest = divmod(parts.heads_width, heads)
    if rest:
        raise SiteError(
            f"site '{name}': the output projection of {type(model).__name__} takes {parts.heads_width} columns, which"
            f" are not {heads} heads of one width; use attention_out"
        )
    if head >= heads:
        raise SiteError(f"site '{name}': {type(model).__name__} has heads 0 to {heads - 1}; choose one of them")
    return replace(parts.projection, columns=(head * width, (head + 1) * width))


def _probe(model: PreTrainedModel) -> Int[Tensor, "batch position"]:
    return torch.arange(8, device=model.device).view(2, 4)


@torch.no_grad()
def _trimmable(model: PreTrainedModel, blocks: nn.ModuleList) -> tuple[nn.Module, ...]:
    """Return what of the last block needs the last position only, where only the logits of that are wanted.

    The MLP and the output projection of attention act on each position by itself, and are added to the residual stream,
    to which a single position is broadcast: the other positions become wrong, and nothing reads them. Models that do
    something else are told by their logits.
    """
    parts, token_ids = None, _probe(model)
    with suppress(NonFiniteError):  # residual sites of a damaged model say so when they are read
        parts = find_parts(model, blocks[-1])
    if parts is not None:
        mlp = (parts.mlp_in.module,) if parts.mlp_in is not None else ()
        expected = model(input_ids=token_ids).logits[:, -1:]
        for modules in ((parts.projection.module, *mlp), (parts.projection.module,)):
            with suppress(RuntimeError), last_positions_only(model, 1, modules):  # a single position may not fit in
                if _are_close(model(input_ids=token_ids).logits, expected, model.dtype):
                    return modules
    _log.info("%s: its last block has to be evaluated at all positions", type(model).__name__)
    return ()


@torch.no_grad()
def _keeps_past(site: Site) -> bool:
    """Say whether going on from a later position, with the clean past kept, gives the logits of the whole pass.

    Tried on two examples, of which each gets the other's activation from the second or from the last position on.
    """
    token_ids = _probe(site.model)
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


def _returns_tuple(model: PreTrainedModel, block: nn.Module) -> bool:
    seen: list[bool] = []
    handle = block.register_forward_hook(lambda _module, _input, output: seen.append(isinstance(output, tuple)))
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    finally:
        handle.remove()
    return seen[0]
