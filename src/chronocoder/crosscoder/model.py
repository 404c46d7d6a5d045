"""The crosscoder: one dictionary for the activations of several checkpoints (Lindsey et al. 2024; arXiv 2509.05291)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from chronocoder.crosscoder.products import half_product
from chronocoder.errors import StoreError
from chronocoder.stores import whole_directory
from chronocoder.variants import Variant
from chronocoder.variants.base import CrosscoderSettings

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class CrosscoderConfig:
    """What a saved crosscoder has to know beside its weights.

    Attributes:
        suite: the pretraining run.
        comparison: name of the comparison.
        variant: name of the variant.
        checkpoints: their labels, in order of training; index m of the weights.
        site: where the activations are read.
        d_model: width of an activation: the largest one, where those of checkpoints differ.
        settings: the variant.
        seed: seed of initialisation and data order.
        commits: what identifies each checkpoint's weights.
        folded: whether the weights take raw activations.
        first_token: what became of the first token of each sequence, in normalisation, training, evaluation and
            attribution: `left_out`.
        unequal_widths: width at each checkpoint, where they differ; behind it weights and activations have zeros.
    """

    suite: str
    comparison: str
    variant: str
    checkpoints: tuple[str, ...]
    site: str
    d_model: int
    settings: CrosscoderSettings
    seed: int
    commits: tuple[str, ...]
    folded: bool
    first_token: str = "left_out"
    unequal_widths: tuple[int, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of an activation at each checkpoint."""
        return self.unequal_widths or (self.d_model,) * len(self.checkpoints)


def side_by_side(activations: Sequence[Float[Tensor, "*batch width"]]) -> Float[Tensor, "*batch checkpoint d_model"]:
    """Return the activations of all checkpoints together, with zeros behind those that are narrower than others."""
    width = max(activation.shape[-1] for activation in activations)
    return torch.stack([pad(activation, (0, width - activation.shape[-1])) for activation in activations], dim=-2)


class Crosscoder(nn.Module):
    """Encodes activations of M checkpoints to one code, and decodes it to each of them.

    f = act(sum_m W_enc^m x^m + b_enc); x_hat^m = W_dec^m f + b_dec^m. The rows of a latent lie together in memory,
    those of all checkpoints side by side, so that sparse codes and shards of the dictionary touch whole rows.

    Attributes:
        encoder_rows: shape (feature, checkpoint, d_model).
        decoder_rows: shape (feature, checkpoint, d_model).
        b_enc: shape (feature,).
        b_dec: shape (checkpoint, d_model).
        log_threshold: logarithm of the thresholds while a variant learns them by gradient, shape (feature,); absent
            otherwise.
        scale: the factors s_m of the normalisation that the decoder norms refer to, shape (checkpoint,).
        threshold: smallest activation times decoder norms that is kept at inference, shape (feature,).
    """

    scale: Tensor
    threshold: Tensor
    log_threshold: Tensor

    def __init__(
        self, config: CrosscoderConfig, generator: torch.Generator | None = None, features: range | None = None
    ) -> None:
        """Initialise decoder rows at random directions of the settings' norm, and the encoder as their transpose.

        Args:
            config: what it is.
            generator: of the directions; without one the weights are left as they come, to be loaded.
            features: the latents to hold; all where not given.
        """
        super().__init__()
        self.config = config
        settings, count, d = config.settings, len(config.checkpoints), config.d_model
        held = len(range(settings.dictionary_size) if features is None else features)
        self.decoder_rows = nn.Parameter(torch.empty(held, count, d))
        self.encoder_rows = nn.Parameter(torch.empty(held, count, d))
        self.b_enc = nn.Parameter(torch.zeros(held))
        self.b_dec = nn.Parameter(torch.zeros(count, d))
        if settings.learns_threshold and not config.folded:
            initial = torch.tensor(settings.model_dump()["initial_threshold"]).log()
            self.log_threshold = nn.Parameter(initial.repeat(held))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("threshold", torch.zeros(held))
        if generator is not None:
            self._initialise(generator, features or range(held))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator, features: range) -> None:
        """Draw the whole dictionary's rows, and keep those that are held: all shards together are one dictionary."""
        for first, rows in self._random_rows(generator):
            kept = range(max(first, features.start), min(first + len(rows), features.stop))
            if kept:
                own = rows[kept.start - first : kept.stop - first]
                self.decoder_rows[kept.start - features.start : kept.stop - features.start] = own
        self.encoder_rows.copy_(self.decoder_rows)

    def _random_rows(self, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
        settings = self.config.settings
        for first in range(0, settings.dictionary_size, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, settings.dictionary_size - first)
            rows = torch.randn(count, *self.decoder_rows.shape[1:], generator=generator)
            for checkpoint, width in enumerate(self.config.widths):
                rows[:, checkpoint, width:] = 0  # and no gradient ever changes it
            yield first, rows * (settings.decoder_norm / rows.norm(dim=-1, keepdim=True))

    @property
    def W_enc(self) -> Float[Tensor, "checkpoint d_model feature"]:
        """The encoder's weights."""
        return self.encoder_rows.permute(1, 2, 0)

    @property
    def W_dec(self) -> Float[Tensor, "checkpoint feature d_model"]:
        """The decoder's weights."""
        return self.decoder_rows.transpose(0, 1)

    @property
    def facts(self) -> dict[str, str | int | list[str]]:
        """Return what every store derived from this crosscoder says of its origin."""
        config = self.config
        return {
            "suite": config.suite,
            "comparison": config.comparison,
            "variant": config.variant,
            "site": config.site,
            "seed": config.seed,
            "commits": list(config.commits),
            "first_token": config.first_token,
        }

    @property
    def decoder_norms(self) -> Float[Tensor, "checkpoint feature"]:
        """Norms of the decoder rows in normalised units: folding does not change them."""
        norms: Tensor = _Norms.apply(self.decoder_rows).T  # type: ignore[no-untyped-call]
        return norms * self.scale[:, None] if self.config.folded else norms

    @property
    def current_threshold(self) -> Float[Tensor, " feature"]:
        """The inference threshold at this point of the training."""
        learning = self.config.settings.learns_threshold and not self.config.folded
        return self.log_threshold.detach().exp() if learning else self.threshold

    def preactivations(self, x: Float[Tensor, "token n"]) -> Float[Tensor, "token feature"]:
        """Return sum_m W_enc^m x^m + b_enc of activations that lie side by side, n = checkpoints times d_model."""
        rows = self.encoder_rows.flatten(1)
        if torch.is_autocast_enabled(x.device.type):  # the bias is added in float32, or values of one latent tie
            return half_product(x, rows.T).add_(self.b_enc)
        return torch.addmm(self.b_enc, x, rows.T)

    def encode(self, x: Float[Tensor, "token checkpoint d_model"]) -> Float[Tensor, "token feature"]:
        """Return the codes as inference sees them: each token for itself."""
        norms = self.decoder_norms.sum(dim=0)
        return self.config.settings.infer(self.preactivations(x.flatten(1)), norms, self.threshold)

    def decode(self, f: Float[Tensor, "token feature"]) -> Float[Tensor, "token checkpoint d_model"]:
        """Return the reconstruction at every checkpoint."""
        flat = torch.addmm(self.b_dec.flatten(), f, self.decoder_rows.flatten(1))
        return flat.view(len(f), *self.b_dec.shape)

    def decode_at(self, f: Float[Tensor, "token feature"], checkpoint: int) -> Float[Tensor, "token d_model"]:
        """Return the reconstruction at one checkpoint."""
        return torch.addmm(self.b_dec[checkpoint], f, self.decoder_rows[:, checkpoint])

    @torch.no_grad()
    def fold_scale(self, scale: Float[Tensor, " checkpoint"]) -> "Crosscoder":
        """Return a crosscoder of raw activations a, equal to this one of normalised x^m = s_m a^m.

        W_enc^m s_m, W_dec^m / s_m, b_dec^m / s_m. Codes are the same; reconstructions are in raw units. Thresholds are
        in the units of activation times normalised decoder norm, which stay.
        """
        features = range(len(self.b_enc))
        folded = Crosscoder(replace(self.config, folded=True), features=features)
        folded.encoder_rows.copy_(self.encoder_rows * scale[:, None])
        folded.decoder_rows.copy_(self.decoder_rows / scale[:, None])
        folded.b_dec.copy_(self.b_dec / scale[:, None])
        folded.b_enc.copy_(self.b_enc)
        folded.scale.copy_(scale)
        folded.threshold.copy_(self.current_threshold)
        folded.requires_grad_(False)
        return folded

    def save(self, path: Path) -> None:
        """Write model.safetensors (W_enc, W_dec and the rest, by these names) and config.json; both appear at once."""
        settings = self.config.settings.model_dump(mode="json")
        document = {**asdict(self.config), "settings": settings}
        rest = {name: value for name, value in self.state_dict().items() if not name.endswith("_rows")}
        weights = {"W_enc": self.W_enc.contiguous(), "W_dec": self.W_dec.contiguous(), **rest}
        with whole_directory(path) as partial:
            save_file(weights, partial / WEIGHTS_FILE)
            (partial / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


class _Norms(torch.autograd.Function):
    """Norms along the last dimension, whose gradient takes one pass over the rows where PyTorch's takes several."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        norms: Tensor = rows.norm(dim=-1)
        context.save_for_backward(rows, norms)
        return norms

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        rows, norms = context.saved_tensors
        gradient: Tensor = rows * (gradients[0] / norms).masked_fill_(norms == 0, 0)[..., None]
        return gradient


def load_crosscoder(path: Path, device: torch.device | str = "cpu") -> Crosscoder:
    """Read a saved crosscoder, for inference.

    Raises:
        StoreError: a file is missing or does not fit the other.
    """
    try:
        document = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        settings = TypeAdapter(Variant).validate_python(document.pop("settings"))
        checkpoints, commits = (tuple(document.pop(key)) for key in ("checkpoints", "commits"))
        document["unequal_widths"] = tuple(document.get("unequal_widths", ()))
        config = CrosscoderConfig(**document, checkpoints=checkpoints, commits=commits, settings=settings)
        crosscoder = Crosscoder(config)
        weights = load_file(path / WEIGHTS_FILE)
        rows = {
            "encoder_rows": weights.pop("W_enc").permute(2, 0, 1),
            "decoder_rows": weights.pop("W_dec").transpose(0, 1),
        }
        crosscoder.load_state_dict({**weights, **rows})
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"{path}: no readable crosscoder ({error}); train it again") from error
    return crosscoder.requires_grad_(False).eval().to(device)
