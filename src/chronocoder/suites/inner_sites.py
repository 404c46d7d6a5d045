"""Attention and MLP of a block, found by what they do to the residual stream: their names play no part.

A block makes y = x + c (a + m) of the stream x that enters it. `attention_out` is c a and `mlp_out` is c m; c is 1 but
for models with a residual multiplier. In a pass over a few tokens the outputs of any two modules in the block are tried
as a and m. So it does not matter whether a norm lies between an MLP and the stream (OLMo 2, Gemma 2), whether a module
adds the residual itself (BLOOM, MPT), or whether the MLP is no module at all (OPT). Of the two, attention is the one
that reaches from one position to others while the other one is held. Gradients tell which matrices make a part.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from chronocoder.errors import NonFiniteError
from chronocoder.suites.places import Place, first_input, first_output, with_first_input, with_first_output
from chronocoder.suites.precision import overflow_remedy

TOLERANCE = 1e-3
"""Part of what a block adds by which a sum may differ from it, beside rounding."""


class Parts(NamedTuple):
    """Attention and MLP of a block.

    Attributes:
        attention: what attention adds to the stream.
        mlp: what the MLP adds to it.
        mlp_in: what all matrices of the MLP see of the stream, after its norm; None where they see no one tensor.
        projection: what enters the output projection of attention: its heads side by side.
        heads_width: width of that.
    """

    attention: Place
    mlp: Place
    mlp_in: Place | None
    projection: Place
    heads_width: int


class _BlockEnd(Exception):  # noqa: N818
    """Ends a forward pass behind a block."""


class _Call(NamedTuple):
    module: nn.Module
    given: Tensor | None
    output: Tensor


class _Pass(NamedTuple):
    """What happens in a block: its entry, a leaf; the calls of its modules as they end; and its output."""

    entry: Tensor
    calls: list[_Call]
    exit: Tensor

    def output(self, place: Place) -> Tensor:
        return next(call.output for call in self.calls if call.module is place.module)


class _Sum(NamedTuple):
    """Two outputs that may be what a block adds, and how far from it they are; None where too far."""

    earlier: _Call
    later: _Call
    scale: float
    error: float | None


@torch.enable_grad()
def find_parts(model: PreTrainedModel, block: nn.Module) -> Parts | None:
    """Find attention and MLP of a block; None where what it adds to the stream is no sum of the two.

    Raises:
        NonFiniteError: the model is damaged.
    """
    seen = _run(model, block)
    if not torch.isfinite(seen.exit).all():
        raise NonFiniteError(f"{model.name_or_path}: non-finite activations; {overflow_remedy(model)}")
    found = _addends(seen)
    if found is None:
        return None
    scale = _stated(found.scale, model)
    earlier, later = (Place(call.module, "output", scale) for call in (found.earlier, found.later))
    held = _run(model, block, [earlier])
    mixing = [_reaches_others(held, place) for place in (earlier, later)]
    if mixing[0] == mixing[1]:
        return None
    attention, mlp = (earlier, later) if mixing[0] else (later, earlier)
    projection, reader = _matrices(held, attention)[-1:], _matrices(held, mlp)[:1]
    if not (projection and reader and projection[0].given is not None):
        return None
    mlp_in = _input_of(held, reader[0])
    if mlp_in is not None and _depends_on_entry(_run(model, block, [attention, mlp_in]), mlp):
        mlp_in = None
    return Parts(attention, mlp, mlp_in, Place(projection[0].module, "input"), projection[0].given.shape[-1])


def _run(model: PreTrainedModel, block: nn.Module, held: Sequence[Place] = ()) -> _Pass:
    """Run a model on a few tokens up to the end of a block; gradients do not pass the places that are held."""
    entries: list[Tensor] = []
    exits: list[Tensor] = []
    calls: list[_Call] = []

    def begin(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        entries.append(first_input(arguments, keywords).detach().clone().requires_grad_())
        return with_first_input(arguments, keywords, entries[0].clone())

    def keep(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        if not (isinstance(first_output(output), Tensor) and first_output(output).is_floating_point()):
            return output
        kept = first_output(output).clone()  # some models add to an output in place
        given = arguments[0] if arguments else keywords.get("hidden_states")
        calls.append(_Call(module, given if isinstance(given, Tensor) else None, kept))
        return with_first_output(output, kept.clone())

    def end(_module: nn.Module, _arguments: Any, output: Any) -> None:
        exits.append(first_output(output))
        raise _BlockEnd

    with ExitStack() as hooks, suppress(_BlockEnd):
        hooks.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
        hooks.callback(block.register_forward_hook(end).remove)
        for module in block.modules():
            if module is not block:
                hooks.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        for place in held:
            hooks.enter_context(place.edited(Tensor.detach))
        model(input_ids=torch.arange(8, device=model.device).view(2, 4))
    once = Counter(call.module for call in calls)
    return _Pass(entries[0], [call for call in calls if once[call.module] == 1], exits[0])


@torch.no_grad()
def _addends(seen: _Pass) -> _Sum | None:
    """Return the two outputs that add up best to what a block adds, the outermost modules of several."""
    terms = [call for call in reversed(seen.calls) if _is_like(call.output, seen.entry)]
    pairs = [(a, m) for m, a in combinations(terms, 2) if not _is_same(a.output, m.output)]
    sums = [_sum(seen, earlier, later) for earlier, later in pairs]
    fitting = [(one.error, one) for one in sums if one.error is not None]
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _sum(seen: _Pass, earlier: _Call, later: _Call) -> _Sum:
    tensors = (seen.entry.to(seen.exit.device), seen.exit, earlier.output, later.output)
    x, y, a, m = (tensor.double().view_as(seen.entry) for tensor in tensors)
    rounding = 4 * torch.finfo(seen.entry.dtype).eps
    tolerance = max(TOLERANCE, rounding)
    added, total = y - x, a + m
    scale = float((added * total).sum() / total.square().sum())
    size, error = added.norm(dim=-1), (added - scale * total).norm(dim=-1)
    fits = bool((error <= tolerance * size + rounding * (x.norm(dim=-1) + y.norm(dim=-1))).all())
    return _Sum(earlier, later, scale, float((error / size).mean()) if fits else None)


def _stated(scale: float, model: PreTrainedModel) -> float:
    """Return the number in a model's configuration that a scale fits, where there is one: the fit itself is rounded."""
    tolerance = max(TOLERANCE, 4 * torch.finfo(model.dtype).eps)
    numbers = [1.0, *(value for value in model.config.to_dict().values() if isinstance(value, float))]
    nearest = min(numbers, key=lambda number: abs(number - scale))
    return nearest if abs(nearest - scale) <= tolerance * scale else scale


def _is_like(tensor: Tensor | None, entry: Tensor) -> bool:
    """Say whether a tensor is of the stream's shape, or of that with all positions in one dimension."""
    return tensor is not None and tensor.numel() == entry.numel() and tensor.shape[-1] == entry.shape[-1]


def _reaches_others(seen: _Pass, place: Place) -> bool:
    """Say whether what is at a place at the last position depends on what enters the block at others."""
    last = seen.output(place).view_as(seen.entry)[:, -1]
    gradient = _gradients(last, [seen.entry])[0]
    return gradient is not None and bool(gradient[:, :-1].any())


def _depends_on_entry(seen: _Pass, place: Place) -> bool:
    gradient = _gradients(seen.output(place), [seen.entry])[0]
    return gradient is not None and bool(gradient.any())


def _matrices(seen: _Pass, place: Place) -> list[_Call]:
    """Return the calls of modules with a matrix that what is at a place is made by, in order."""
    calls = [call for call in seen.calls if any(weight.dim() > 1 for weight in call.module.parameters(recurse=False))]
    gradients = _gradients(seen.output(place), [call.output for call in calls])
    return [call for call, gradient in zip(calls, gradients, strict=True) if gradient is not None]


def _gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradients of a weighted sum: that of a norm's output does not depend on its input without weights."""
    needed = [tensor for tensor in inputs if tensor.requires_grad] if value.requires_grad else []
    weights = torch.arange(1, value.numel() + 1, device=value.device).view_as(value).sin().to(value.dtype)
    found = iter(torch.autograd.grad(value, needed, weights, retain_graph=True, allow_unused=True) if needed else ())
    return [next(found) if value.requires_grad and tensor.requires_grad else None for tensor in inputs]


def _input_of(seen: _Pass, reader: _Call) -> Place | None:
    """Return the input of the outermost module around a matrix, or of itself, that is what the matrix sees."""
    if not _is_like(reader.given, seen.entry):
        return None
    around = [call for call in seen.calls if reader.module in set(call.module.modules())]
    same = [call for call in around if _is_like(call.given, seen.entry) and _is_same(call.given, reader.given)]
    return Place(same[-1].module, "input") if same else None


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.flatten(), other.flatten())
