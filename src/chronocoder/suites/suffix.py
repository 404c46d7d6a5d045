"""Keys and values of clean prefixes, with which a computation resumes at the first position that is changed."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


def empty_past() -> DynamicCache:
    """Return a cache that keeps keys and values of all positions in the pass that it is given to."""
    return DynamicCache()


def past_of(clean: Cache, examples: Int[Tensor, " row"], start: int) -> Cache:
    """Return a cache for a pass over the positions from `start` on, of rows of one example each, which may repeat.

    Args:
        clean: keys and values of all positions of the clean examples, kept in blocks after the site.
        examples: the rows' places among them.
        start: the first position of the pass.
    """
    return Cache(layers=[_CleanPrefix(layer, examples, start) for layer in clean.layers])


class _CleanPrefix(DynamicLayer):  # type: ignore[misc]
    """The clean keys and values of the positions before a pass, taken up by a block when it is run, and let go then."""

    def __init__(self, clean: DynamicLayer, examples: Int[Tensor, " row"], start: int) -> None:
        super().__init__()
        self._clean, self._examples, self._start = clean, examples, start

    def get_seq_length(self) -> int:
        return self._start

    def update(
        self,
        key_states: Float[Tensor, "row head position size"],
        value_states: Float[Tensor, "row head position size"],
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor]:
        return self._joined(self._clean.keys, key_states), self._joined(self._clean.values, value_states)

    def _joined(self, clean: Tensor, own: Tensor) -> Tensor:
        whole = clean[self._examples.to(clean.device)]
        whole[:, :, self._start :] = own
        return whole
