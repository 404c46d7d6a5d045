"""Floating-point operations. A multiply-add counts as two.

Letters: d width of an activation, D latents, M checkpoints, L tokens of a sequence, P weights of a block's matrices,
a width of its attention, V vocabulary. Norms, softmax, selections and the optimiser are left out: they are bound by
memory.
"""

from typing import NamedTuple

from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.plan.sizes import blocks_after, blocks_up_to, chosen_features, control_directions
from chronocoder.variants.base import CrosscoderSettings

DENSE_PRODUCTS = 5
SPARSE_PRODUCTS = 4


class Prompts(NamedTuple):
    """Text that passes through models.

    Attributes:
        number: sequences, or prefixes of examples.
        length: tokens of each.
    """

    number: int
    length: int


def blocks_flops(shape: ModelShape, tokens: float, length: int, blocks: int) -> float:
    """Return the FLOPs of tokens passing forward through some blocks, tokens x blocks x (2 P + 4 L a).

    4 L a: each token's scores with all L positions, and their mixing; that half of them are masked saves nothing.
    """
    return tokens * blocks * (2 * shape.block_parameters + 4 * length * shape.attention_width)


def logits_flops(shape: ModelShape, tokens: float) -> float:
    """Return the FLOPs of the output embedding, 2 d V a token."""
    return tokens * 2 * shape.d_model * shape.vocabulary_size


def training_flops(settings: CrosscoderSettings, crosscoder: CrosscoderShape) -> float:
    """Return the FLOPs of a training, without the models that streaming runs.

    Dense variants: five products of 2 M d D a token: forward encode and decode; backward the gradients of code, decoder
    and encoder (none of x). Sparse ones: the dense encode, and four products of 2 M d k: decode, and the three
    gradients. The auxiliary loss: four more products of 2 M d k_aux, where it has a weight: at most, since it is
    computed only while there are dead latents.
    """
    dense, sparse = (DENSE_PRODUCTS, 0.0) if not settings.cost.sparse else (1, SPARSE_PRODUCTS * settings.mean_k)
    auxiliary = SPARSE_PRODUCTS * settings.auxiliary_k if settings.auxiliary_coefficient else 0
    token = crosscoder.product_flops(dense * settings.dictionary_size + sparse + auxiliary)
    return settings.steps * settings.batch_tokens * token


def streaming_flops(
    settings: CrosscoderSettings, shape: ModelShape, checkpoints: int, length: int, blocks: int
) -> float:
    """Return the FLOPs of the models that are run up to the site, for the batches and for the normalisation.

    M truncated forward passes a token; L / (L - 1) of them, since the first token of a sequence is run and left out.
    """
    tokens = (settings.steps * settings.batch_tokens + settings.normalisation_tokens) * length / (length - 1)
    return checkpoints * blocks_flops(shape, tokens, length, blocks)


def resumed_flops(shape: ModelShape, prompts: Prompts, site: str) -> float:
    """Return the FLOPs of one pass from the site on, without logits.

    In the last block what is behind the attention sees the last token only, since only its logits are wanted.
    """
    number, length = prompts
    blocks = blocks_after(site, shape.blocks)
    unseen = number * (length - 1) if blocks else 0
    return blocks_flops(shape, number * length, length, blocks) - unseen * 2 * shape.position_parameters


def prompts_flops(
    settings: AttributionSettings, shape: ModelShape, crosscoder: CrosscoderShape, prompts: Prompts, site: str
) -> float:
    """Return the FLOPs of reading a task's prompts: the blocks up to the site at each checkpoint; encode, 2 M d D.

    Twice all that where features are patched towards a counterfactual prefix, which is read too.

    Args:
        settings: the intervention.
        shape: of the models.
        crosscoder: its sizes.
        prompts: the task's.
        site: where the activations are read.
    """
    tokens = prompts.number * prompts.length
    before = blocks_flops(shape, tokens, prompts.length, blocks_up_to(site))
    once = crosscoder.checkpoints * before + tokens * crosscoder.product_flops()
    return once * (2 if settings.intervention == "counterfactual" else 1)


def attribution_flops(
    settings: AttributionSettings, shape: ModelShape, crosscoder: CrosscoderShape, prompts: Prompts, site: str
) -> float:
    """Return the FLOPs of the effects on one task.

    Reading the prompts; for each checkpoint the projection on the decoder, 2 d D, and the blocks after the site: two
    copies for the true change, and those of the estimator. A gradient takes a copy forward and as much backward, since
    the weights are frozen: one with `attribution_patching`, `steps` with `integrated_gradients`. `exact` takes a clean
    copy, one without the error term, and at most one for each latent and random direction. Gradients are projected on
    random directions too; those are D-long mixes of rows. Shuffled prefixes take all but the directions once more. The
    logits of two answers are left out.

    Args:
        settings: estimator, intervention and steps.
        shape: of the models.
        crosscoder: its sizes.
        prompts: the task's.
        site: where the activations are read.
    """
    directions = control_directions(settings, crosscoder)
    reading = prompts_flops(settings, shape, crosscoder, prompts, site)
    resumed = crosscoder.checkpoints * resumed_flops(shape, prompts, site)
    projected = prompts.number * prompts.length * crosscoder.product_flops()
    mixing = directions * crosscoder.product_flops()

    def estimating(changed: int) -> float:
        copies = {"integrated_gradients": 2 * settings.steps, "attribution_patching": 2, "exact": 2 + changed}
        products = 1 if settings.estimator == "exact" else changed / crosscoder.latents
        return reading + (2 + copies[settings.estimator]) * resumed + products * projected

    shuffled = estimating(crosscoder.latents) if settings.shuffled_tokens else 0.0
    return mixing + estimating(crosscoder.latents + directions) + shuffled


def ablation_flops(
    settings: AttributionSettings,
    ablation: AblationSettings,
    shape: ModelShape,
    crosscoder: CrosscoderShape,
    prompts: Prompts,
    site: str,
) -> float:
    """Return the FLOPs of ablating on one task.

    Reading the prompts; for each checkpoint the blocks after the site: the gradients of both estimators that take any,
    the true change that they should add up to, and exact copies with all logits of the last token: clean, each chosen
    feature changed, each set of them changed. That a feature is silent in an example, which is then left out, is not
    counted.

    Args:
        settings: of the attribution.
        ablation: which features, and which sets.
        shape: of the models.
        crosscoder: its sizes.
        prompts: the task's.
        site: where the activations are read.
    """
    sets = len(ablation.set_sizes) * (1 + ablation.random_sets)
    exact = 1 + chosen_features(ablation, crosscoder) + sets
    resumed = (2 * (1 + settings.steps) + 2 + exact) * resumed_flops(shape, prompts, site)
    of_checkpoint = resumed + exact * logits_flops(shape, prompts.number)
    return prompts_flops(settings, shape, crosscoder, prompts, site) + crosscoder.checkpoints * of_checkpoint


def own_codes_flops(crosscoder: CrosscoderShape, tokens: float) -> float:
    """Return the FLOPs of the own codes of some tokens, and of the reconstructions from them.

    For each checkpoint the prediction of all activations from its own, 2 d M d, and encode; decode at that one alone.
    """
    M, d, _ = crosscoder
    return tokens * (2 * (M * d) ** 2 + (M + 1) * crosscoder.product_flops())


def evaluation_flops(crosscoder: CrosscoderShape, tokens: float) -> float:
    """Return the FLOPs of measuring a crosscoder on some tokens, without cross-entropy.

    Six products of 2 M d D: encode, decode, each checkpoint's part of the preactivations, latent scaling's two sums;
    encode again, beside the own codes. Second moments take 2 (M d)^2 in float64.
    """
    M, d, _ = crosscoder
    moments = 2 * (M * d) ** 2
    return tokens * (6 * crosscoder.product_flops() + moments) + own_codes_flops(crosscoder, tokens)


def cross_entropy_flops(shape: ModelShape, crosscoder: CrosscoderShape, text: Prompts, site: str) -> float:
    """Return the FLOPs of measuring cross-entropy with the site clean, spliced, zero, from own codes, and at its mean.

    For each checkpoint one pass up to the site and five from there to all logits; once encode, decode and own codes.

    Args:
        shape: of the models.
        crosscoder: its sizes.
        text: the sequences measured.
        site: where the activations are read.
    """
    sequences, length = text
    tokens = sequences * length
    before = blocks_flops(shape, tokens, length, blocks_up_to(site))
    after = blocks_flops(shape, tokens, length, blocks_after(site, shape.blocks)) + logits_flops(shape, tokens)
    spliced = 2 * tokens * crosscoder.product_flops() + own_codes_flops(crosscoder, tokens)
    return crosscoder.checkpoints * (before + 5 * after) + spliced
