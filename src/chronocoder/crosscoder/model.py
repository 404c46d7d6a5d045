"""The crosscoder: one dictionary for the activations of several checkpoints (Lindsey et al. 2024; arXiv 2509.05291)."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import einsum
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chronocoder.config import CrosscoderSettings
from chronocoder.crosscoder.sparsity import SPARSITIES, Selection
from chronocoder.errors import StoreError
from chronocoder.stores import whole_directory

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class CrosscoderConfig:
    """What a saved crosscoder has to know beside its weights.

    Attributes:
        suite: the pretraining run.
        comparison: name of the comparison.
        variant: name of the variant.
        checkpoints: revisions, in order of training; index m of the weights.
        site: where the activations are read.
        d_model: width of an activation.
        settings: the variant.
        seed: seed of initialisation and data order.
        commits: what identifies each checkpoint's weights.
        folded: whether the weights take raw activations.
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


class Crosscoder(nn.Module):
    """Encodes activations of M checkpoints to one code, and decodes it to each of them.

    f = act(sum_m W_enc^m x^m + b_enc); x_hat^m = W_dec^m f + b_dec^m.

    Attributes:
        W_enc: shape (checkpoint, d_model, feature).
        b_enc: shape (feature,).
        W_dec: shape (checkpoint, feature, d_model).
        b_dec: shape (checkpoint, d_model).
        scale: the factors s_m of the normalisation that the decoder norms refer to, shape (checkpoint,).
        threshold: smallest activation times decoder norm that is kept at inference (`batchtopk`), scalar.
    """

    scale: Tensor
    threshold: Tensor

    def __init__(self, config: CrosscoderConfig, generator: torch.Generator) -> None:
        """Initialise decoder rows at random directions of the settings' norm, and the encoder as their transpose."""
        super().__init__()
        self.config = config
        settings, count = config.settings, len(config.checkpoints)
        rows = torch.randn(count, settings.dictionary_size, config.d_model, generator=generator)
        rows *= settings.decoder_norm / rows.norm(dim=-1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.transpose(1, 2).contiguous())
        self.b_enc = nn.Parameter(torch.zeros(settings.dictionary_size))
        self.b_dec = nn.Parameter(torch.zeros(count, config.d_model))
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("threshold", torch.zeros(()))

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
        }

    @property
    def decoder_norms(self) -> Float[Tensor, "checkpoint feature"]:
        """Norms of the decoder rows in normalised units: folding does not change them."""
        norms: Tensor = self.W_dec.norm(dim=-1)
        return norms * self.scale[:, None] if self.config.folded else norms

    def preactivations(self, x: Float[Tensor, "token checkpoint d_model"]) -> Float[Tensor, "token feature"]:
        """Return sum_m W_enc^m x^m + b_enc."""
        encoded: Tensor = einsum(x, self.W_enc, "token checkpoint d, checkpoint d feature -> token feature")
        return encoded + self.b_enc

    def select(self, x: Float[Tensor, "token checkpoint d_model"]) -> Selection:
        """Return the codes as training sees them: `batchtopk` keeps the largest of the whole batch."""
        sparsity = SPARSITIES[self.config.settings.sparsity]
        return sparsity.train(self.preactivations(x), self.decoder_norms.sum(dim=0), self.config.settings)

    def encode(self, x: Float[Tensor, "token checkpoint d_model"]) -> Float[Tensor, "token feature"]:
        """Return the codes as inference sees them: each token for itself."""
        sparsity = SPARSITIES[self.config.settings.sparsity]
        return sparsity.infer(self.preactivations(x), self.decoder_norms.sum(dim=0), self.threshold)

    def decode(self, f: Float[Tensor, "token feature"]) -> Float[Tensor, "token checkpoint d_model"]:
        """Return the reconstruction at every checkpoint."""
        decoded: Tensor = einsum(f, self.W_dec, "token feature, checkpoint feature d -> token checkpoint d")
        return decoded + self.b_dec

    def forward(
        self, x: Float[Tensor, "token checkpoint d_model"]
    ) -> tuple[Selection, Float[Tensor, "token checkpoint d_model"]]:
        """Return training codes and their reconstruction."""
        selection = self.select(x)
        return selection, self.decode(selection.codes)

    @torch.no_grad()
    def fold_scale(self, scale: Float[Tensor, " checkpoint"]) -> "Crosscoder":
        """Return a crosscoder of raw activations a, equal to this one of normalised x^m = s_m a^m.

        W_enc^m s_m, W_dec^m / s_m, b_dec^m / s_m. Codes are the same; reconstructions are in raw units.
        """
        folded = Crosscoder(replace(self.config, folded=True), torch.Generator())
        folded.W_enc.copy_(self.W_enc * scale[:, None, None])
        folded.W_dec.copy_(self.W_dec / scale[:, None, None])
        folded.b_dec.copy_(self.b_dec / scale[:, None])
        folded.b_enc.copy_(self.b_enc)
        folded.scale.copy_(scale)
        folded.threshold.copy_(self.threshold)
        return folded.requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write model.safetensors and config.json; the directory appears whole."""
        settings = self.config.settings.model_dump(mode="json")
        document = {**asdict(self.config), "settings": settings}
        with whole_directory(path) as partial:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, partial / WEIGHTS_FILE)
            (partial / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_crosscoder(path: Path, device: torch.device | str = "cpu") -> Crosscoder:
    """Read a saved crosscoder, for inference.

    Raises:
        StoreError: a file is missing or does not fit the other.
    """
    try:
        document = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        settings = CrosscoderSettings.model_validate(document.pop("settings"))
        checkpoints, commits = (tuple(document.pop(key)) for key in ("checkpoints", "commits"))
        config = CrosscoderConfig(**document, checkpoints=checkpoints, commits=commits, settings=settings)
        crosscoder = Crosscoder(config, torch.Generator())
        crosscoder.load_state_dict(load_file(path / WEIGHTS_FILE))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"{path}: no readable crosscoder ({error}); train it again") from error
    return crosscoder.requires_grad_(False).eval().to(device)
