"""Floating-point operations. A multiply-add counts as two.

Letters: d width of an activation, D latents, M checkpoints, L tokens of a sequence, P weights of a block's matrices,
a width of its attention, V vocabulary. Norms, softmax, selections and the optimiser are left out: they are bound by
memory.
"""

from typing import NamedTuple

from chronocoder.config import EXACT, SCREEN, TWO_STAGES, AblationSettings, AttributionSettings
from chronocoder.plan.changes import Changes, changes_of
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.plan.sizes import (
    TaskTexts,
    blocks_after,
    blocks_up_to,
    chosen_features,
    control_directions,
    exact_features,
    random_in_place,
    top_features,
)
from chronocoder.variants.base import CrosscoderSettings

DENSE_PRODUCTS = 5
SPARSE_PRODUCTS = 4


class Prompts(NamedTuple):
    """Text that passes through models.

    Attributes:
        number: sequences, or prefixes or sentences of examples.
        length: tokens of each.
        scored: last positions of each whose logits of the vocabulary are wanted; 0 where those of two answers are.
    """

    number: float
    length: float
    scored: float = 0.0

    @classmethod
    def of(cls, pairs: int, texts: TaskTexts) -> "Prompts":
        """Return what is read of some pairs."""
        return cls(pairs * texts.number, texts.length, texts.scored)


def blocks_flops(shape: ModelShape, tokens: float, length: float, blocks: int) -> float:
    """Return the FLOPs of tokens passing forward through some blocks, tokens x blocks x (2 P + 4 L a).

    4 L a: each token's scores with all L positions, and their mixing; that half of them are masked saves nothing.
    """
    return tokens * blocks * (2 * shape.block_parameters + 4 * length * shape.attention_width)


def gradients_of(settings: AttributionSettings, estimator: str, share: float = 1.0) -> float:
    """Return the gradients that an estimator takes of each example: 0 for `exact`.

    Args:
        settings: groups, points of each, and steps.
        estimator: its name.
        share: latents and random directions together, over latents; both are in groups of the same size.
    """
    of_groups = 1 + settings.points * settings.groups * share
    return {"attribution_patching": 1, "published": settings.steps, SCREEN: of_groups}.get(estimator, 0)


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
    """Return the FLOPs of one pass of all prompts from the site on."""
    return suffix_flops(shape, prompts, site, Changes(1, prompts.length)) if prompts.number else 0.0


def suffix_flops(shape: ModelShape, prompts: Prompts, site: str, changes: Changes) -> float:
    """Return the FLOPs of running rows from the site on, each from some position to the end.

    Where only the last token's logits are wanted, what is behind the attention in the last block sees that token only.
    Logits of the vocabulary are computed at the scored positions that a row reaches; those of two answers are left out.

    Args:
        shape: of the models.
        prompts: the examples; a token attends to all of a text.
        site: where rows begin.
        changes: rows of an example, and their tokens.
    """
    number, length, scored = prompts
    blocks = blocks_after(site, shape.blocks)
    unseen = number * (changes.tokens - changes.features) if blocks and scored <= 1 else 0
    passed = blocks_flops(shape, number * changes.tokens, length, blocks) - unseen * 2 * shape.position_parameters
    return passed + logits_flops(shape, number * min(changes.tokens, changes.features * scored))


class Measuring(NamedTuple):
    """A task whose effects are measured.

    Attributes:
        settings: of the attribution; the estimator is not `auto`.
        shape: of the models.
        crosscoder: its sizes.
        prompts: the task's.
        site: where the activations are read.
        l0: active latents a token.
    """

    settings: AttributionSettings
    shape: ModelShape
    crosscoder: CrosscoderShape
    prompts: Prompts
    site: str
    l0: float

    @property
    def changes(self) -> Changes:
        """What the intervention changes in an example."""
        return changes_of(self.settings, self.crosscoder.latents, self.l0, self.prompts.length)

    @property
    def largest(self) -> Changes:
        """What grouped gradients change alone in an example."""
        return self.changes.of(min(1.0, self.settings.alone / max(self.changes.features, 1.0)))

    def strong(self, features: float) -> Changes:
        """Return what changes in an example of some features of large effect."""
        return self.changes.of_strong(features, self.crosscoder.latents)

    def rows(self, *changes: Changes) -> float:
        """Return the FLOPs of running suffixes at one checkpoint."""
        return sum(suffix_flops(self.shape, self.prompts, self.site, of) for of in changes)

    @property
    def copy(self) -> float:
        """FLOPs of running all prompts from the site on at one checkpoint."""
        return resumed_flops(self.shape, self.prompts, self.site)

    @property
    def reading(self) -> float:
        """FLOPs of reading the prompts: the blocks up to the site at each checkpoint; encode, 2 M d D.

        Twice all that where features are patched towards another prefix, which is read too.
        """
        tokens = self.prompts.number * self.prompts.length
        before = blocks_flops(self.shape, tokens, self.prompts.length, blocks_up_to(self.site, self.shape.blocks))
        once = self.crosscoder.checkpoints * before + tokens * self.crosscoder.product_flops()
        return once * (2 if self.settings.intervention in ("counterfactual", "resample") else 1)


def exact_flops(task: Measuring) -> float:
    """Return the FLOPs of the exact effects of all features and random directions on one task, for all checkpoints.

    For each checkpoint the blocks after the site: a clean copy, one without the error term, and of each feature and
    random direction that changes the prefix from its first change on.
    """
    share = 1 + control_directions(task.settings, task.crosscoder) / task.crosscoder.latents
    return task.crosscoder.checkpoints * (2 * task.copy + task.rows(task.changes.of(share)))


def attribution_flops(task: Measuring) -> float:
    """Return the FLOPs of the effects on one task.

    Reading the prompts; for each checkpoint the projection of gradients on the decoder, 2 d D, and the blocks after the
    site: two copies for the true change, a clean one and a suffix for what rounding does, and those of the estimator. A
    gradient takes a copy forward and as much backward, since the weights are frozen. Grouped gradients take one to find
    the largest features, which are changed exactly, and one for each group. Gradients are projected on random
    directions too; those are D-long mixes of rows. Two stages take random directions and the features of largest effect
    exactly, and read the prompts twice. Shuffled texts take all but the directions once more. The logits of two answers
    are left out, those of the vocabulary are not.
    """
    settings, _, crosscoder, prompts, _, _ = task
    changes, checkpoints = task.changes, crosscoder.checkpoints
    projected = prompts.number * prompts.length * crosscoder.product_flops()

    def estimating(directions: int) -> float:
        share = 1 + directions / crosscoder.latents
        if settings.estimator == EXACT:
            return checkpoints * (2 * task.copy + task.rows(changes.of(share))) + projected
        if settings.estimator != TWO_STAGES:
            return screening(settings.estimator, share)
        chosen = task.strong(exact_features(settings, crosscoder))
        exactly = 2 * task.copy + task.rows(changes.of(share - 1), chosen)
        return screening(SCREEN, 1.0) + checkpoints * exactly + task.reading

    def screening(estimator: str, share: float) -> float:
        gradients = 2 * checkpoints * gradients_of(settings, estimator, share) * task.copy
        if estimator != SCREEN:
            return gradients + share * projected
        alone = task.largest.of(share)
        products = 2 + share + 2 * (share * changes.features - alone.features) / crosscoder.latents
        return gradients + checkpoints * (2 * task.copy + task.rows(alone)) + products * projected

    def whole(directions: int) -> float:
        of_all = checkpoints * (3 * task.copy + task.rows(Changes(1, prompts.length - 1)))
        return task.reading + of_all + estimating(directions)

    directions = control_directions(settings, crosscoder)
    shuffled = whole(0) if settings.shuffled_tokens else 0.0
    return directions * crosscoder.product_flops() + whole(directions) + shuffled


def ablation_flops(task: Measuring, ablation: AblationSettings) -> float:
    """Return the FLOPs of ablating on one task.

    Reading the prompts; for each checkpoint the blocks after the site: the gradients of all estimators, and exact
    changes: a clean copy, each set of features, each chosen feature from its first change on; each top feature at each
    position; and those of `writing_flops`. After a prefix, a clean copy and chosen features take all logits.
    """
    settings, _, crosscoder, prompts, _, l0 = task
    sets = len(ablation.set_sizes) * (1 + ablation.random_sets)
    gradients = sum(gradients_of(settings, name) for name in ("attribution_patching", "published", SCREEN))
    alone = task.strong(chosen_features(ablation, crosscoder))
    top = task.strong(top_features(ablation, crosscoder)).at_positions(prompts.length, l0 / crosscoder.latents)
    passes = (2 * gradients + 2 + 1 + sets) * task.copy + task.rows(alone, top, task.largest)
    logits = 0.0 if prompts.scored else logits_flops(task.shape, prompts.number * (1 + alone.features))
    return task.reading + crosscoder.checkpoints * (passes + logits) + writing_flops(task, ablation)


def writing_flops(task: Measuring, ablation: AblationSettings) -> float:
    """Return the FLOPs of telling what is written from how it is read, on one task; none of a single checkpoint.

    For each checkpoint as a reader a clean copy, and from the first change on each chosen feature of each other
    checkpoint and the random directions in place of each top feature of every checkpoint; those directions are D-long
    mixes of rows.
    The few features whose own code is written, and own codes themselves, are left out.
    """
    M, _, _ = task.crosscoder
    if M == 1:
        return 0.0
    random = random_in_place(task.settings, ablation, task.crosscoder)
    swaps = task.strong((M - 1) * chosen_features(ablation, task.crosscoder) + M * random)
    return M * (task.copy + task.rows(swaps)) + random * task.crosscoder.product_flops()


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
    sequences, length, _ = text
    tokens = sequences * length
    before = blocks_flops(shape, tokens, length, blocks_up_to(site, shape.blocks))
    after = blocks_flops(shape, tokens, length, blocks_after(site, shape.blocks)) + logits_flops(shape, tokens)
    spliced = 2 * tokens * crosscoder.product_flops() + own_codes_flops(crosscoder, tokens)
    return crosscoder.checkpoints * (before + 5 * after) + spliced
