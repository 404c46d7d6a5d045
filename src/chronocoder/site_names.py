"""Names of the places in a model where activations are read, without the model."""

from typing import NamedTuple

SITE_PATTERN = r"(embedding|final|(residual|mlp_in|mlp_out|attention_out)\.[0-9]+|head_out\.[0-9]+\.[0-9]+)"
STREAM_KINDS = ("embedding", "residual", "final")
ADDED_KINDS = ("attention_out", "mlp_out")


class SiteName(NamedTuple):
    """What the name of a site says.

    Attributes:
        kind: what is read, for instance `residual`.
        number: the 0-based block that the name gives; None for `embedding` and `final`.
        head: the 0-based attention head, of `head_out` only.
    """

    kind: str
    number: int | None = None
    head: int | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the activation is the whole residual stream."""
        return self.kind in STREAM_KINDS

    @property
    def adds_to_stream(self) -> bool:
        """Whether the activation is the residual stream, or is added to it as it is."""
        return self.is_stream or self.kind in ADDED_KINDS

    def block(self, blocks: int) -> int:
        """Return the block of a model of so many that the site belongs to; -1 for what enters the first one."""
        if self.number is None:
            return blocks - 1 if self.kind == "final" else -1
        return self.number


def parse_site(name: str) -> SiteName:
    """Return what a name that fits `SITE_PATTERN` says."""
    kind, *numbers = name.split(".")
    return SiteName(kind, *map(int, numbers))
