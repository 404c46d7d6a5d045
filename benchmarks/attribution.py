"""Time effects, and measure their peak memory, against a straightforward version of the same method.

Integrated gradients, or with `--exact` each feature changed alone. The straightforward versions are in this file, and
the tests hold estimators against them. Speeds are measured in turn, round after round, and the ratio is of medians;
memory in processes of their own, beyond that of one that has loaded the same and measured nothing: on the CPU the
largest resident set, on a GPU what the allocator held at most.

    python benchmarks/attribution.py
    python benchmarks/attribution.py --exact --sequences 128
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from untrained import gpt_neox

from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.effects import Prompts, metric
from chronocoder.attribution.exact import exact
from chronocoder.attribution.prompts import read_prompts
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.devices import default_device
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.tasks.rows import row_batches, row_ids
from chronocoder.tasks.tokenise import PADDING
from chronocoder.variants import VARIANTS

STEPS, CHECKPOINTS = 10, 2
COMPLETE = {"path_points": "midpoints", "over_tokens": "sum", "token_threshold": 0.0}
"""Options with which effects along the joint path add up."""
SPEED_TARGET, MEMORY_TARGET = 15, 0.1
EXACT_SPEED_TARGET, PRODUCTS_TARGET = 1.6, 0.7
METHODS = ("nothing", "straightforward", "measure_effects")


class Setting(NamedTuple):
    """What is measured on: random models, and a random crosscoder with eight times as many features as they are wide.

    Attributes:
        width: d_model.
        vocabulary: tokens; by default 24 times the width, as in Pythia 1B and OLMo 1B.
        site: where activations are read.
        blocks: of each model.
        examples: with prefixes of 8 to 12 tokens.
        heads: of attention.
        k: active features a token.
    """

    width: int = 256
    vocabulary: int = 6144
    site: str = "residual.3"
    blocks: int = 8
    examples: int = 64
    heads: int = 4
    k: int = 32


SMALL = Setting(width=32, vocabulary=300, examples=5)


class Works(NamedTuple):
    """The methods to compare, each a function that returns effects (checkpoint, example, feature).

    Attributes:
        straightforward: with weights that require gradients, as they do when just loaded.
        measured: `measure_effects`, with frozen weights, as `load_model` returns them.
    """

    straightforward: Callable[[], np.ndarray]
    measured: Callable[[], np.ndarray]


def main() -> None:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=32, help="attribution.batch_size of measure_effects")
    parser.add_argument("--vocabulary", type=int, default=Setting().vocabulary)
    parser.add_argument("--site", default=Setting().site)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exact", action="store_true", help="measure exact effects in place of integrated gradients")
    parser.add_argument("--one", choices=METHODS, help="for the processes that this command starts: measure one")
    arguments = parser.parse_args()
    setting = Setting(vocabulary=arguments.vocabulary, site=arguments.site)
    if arguments.one:
        write_peak(arguments.one, setting, arguments.sequences)
        return
    if arguments.exact:
        write_exact(setting, arguments.sequences, arguments.rounds)
        return
    # a process counts the peak of the one that started it as its own: memory first
    least, large, small = (peak_mb(method) for method in METHODS)
    works = prepare(setting, arguments.sequences)
    expected, found = (work() for work in works)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    slow, fast = (statistics.median(times) for times in zip(*seconds(works, arguments.rounds), strict=True))
    sys.stdout.write(
        f"{default_device()}, {torch.get_num_threads()} threads, {vars(arguments)}\n"
        f"speed:  {slow:.2f} s / {fast:.2f} s = {slow / fast:.1f} (target: at least {SPEED_TARGET})\n"
        f"memory: {small - least:.1f} MB / {large - least:.1f} MB = {(small - least) / (large - least):.3f}"
        f" (target: at most {MEMORY_TARGET})\n"
        f"largest difference: {difference:.1e} of the largest effect\n"
    )


def write_exact(setting: Setting, sequences: int, rounds: int) -> None:
    """Measure and write how fast exact effects are, beside whole prefixes and beside the products that they need."""
    site, batches = exact_prompts(setting, sequences)
    settings = AttributionSettings(batch_size=sequences)
    tokens, rows, positions = (sum(counts) for counts in zip(*map(changed_tokens, batches), strict=True))

    def measured() -> list[Tensor]:
        return [exact(site, prompts, settings).features.cpu() for prompts in batches]

    def straightforward() -> list[Tensor]:
        return [whole_prefixes(site, prompts, sequences).cpu() for prompts in batches]

    products = products_of(site, tokens, rows, sequences * max(prompts.token_ids.shape[1] for prompts in batches))
    differences = [float((found - of).abs().max()) for found, of in zip(measured(), straightforward(), strict=True)]
    works = (straightforward, measured, products)
    slow, fast, bare = (statistics.median(times) for times in zip(*seconds(works, rounds), strict=True))
    largest = max(float(features.abs().max()) for features in measured())
    sys.stdout.write(
        f"{default_device()}, {torch.get_num_threads()} threads, {sequences} sequences at once, {setting}\n"
        f"{rows} rows, suffixes {tokens / positions:.2f} of all positions\n"
        f"speed:    {slow:.2f} s / {fast:.2f} s = {slow / fast:.2f} (target: at least {EXACT_SPEED_TARGET})\n"
        f"products: {rows / fast:.0f} / {rows / bare:.0f} rows/s = {bare / fast:.2f} (target: {PRODUCTS_TARGET})\n"
        f"largest difference: {max(differences):.1e} logits; largest effect {largest:.1e} logits\n"
    )


def exact_prompts(setting: Setting, sequences: int) -> tuple[Site, list[Prompts]]:
    """Return a site, and prompts at it with the features of a sparse crosscoder; a list for each length."""
    model = random_model(setting, 0).requires_grad_(False)
    task = random_task(setting)
    crosscoder = random_crosscoder(setting, [model], task)
    site = resolve_site(model, setting.site)
    batches = [batch.prompts[0] for batch in read_prompts(crosscoder, [site], task, "zero", sequences)]
    return site, [prompts.restricted(prompts.change.any(dim=(0, 1)).nonzero()[:, 0]) for prompts in batches]


@torch.no_grad()
def whole_prefixes(site: Site, prompts: Prompts, sequences: int) -> Float[Tensor, "batch feature"]:
    """Measure exact effects as before: each (example, feature) is a copy of the whole prefix, from the site on."""
    x = prompts.state.activation
    effects = x.new_zeros(len(x), len(prompts.weight), dtype=torch.float32)
    clean = metric(site, prompts, x[None])[0]
    for places in prompts.change.any(dim=1).nonzero().split(sequences):
        examples, features = places.T
        change = prompts.change[examples, :, features][..., None] * prompts.weight[features][:, None]
        entry = prompts.state.entry[examples]
        changed = x[examples] + change.to(x.dtype)
        readout = prompts.readout.of(examples)
        logits = site.resume(prompts.token_ids[examples], changed, entry, answers=readout.answer_ids)
        effects[examples, features] = readout.terms(logits.float())[:, 0] - clean[examples]
    return effects


def changed_tokens(prompts: Prompts) -> tuple[int, int, int]:
    """Return the tokens from each row's first changed position on, the rows, and all positions of their prefixes."""
    anywhere, first = (prompts.change != 0).to(torch.uint8).max(dim=1)
    rows, length = int(anywhere.sum()), prompts.change.shape[1]
    return rows * length - int((first * anywhere).sum()), rows, rows * length


def products_of(
    site: Site, tokens: int, rows: int, at_once: int, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    """Return a function that does nothing but the products with the weights of the blocks after the site.

    Those behind the last block's attention are of the last token of each row alone.

    Args:
        site: where rows begin.
        tokens: of all rows together.
        rows: their number.
        at_once: tokens in a product.
        dtype: of weights and inputs, which are converted beforehand.
    """
    trimmed = {module for part in site.trimmable for module in part.modules()}
    given: list[tuple[Tensor, int]] = []
    for block in site.blocks[site.index + 1 :]:
        linear = [module for module in block.modules() if isinstance(module, nn.Linear)]
        given += [(module.weight.T.to(dtype), rows if module in trimmed else tokens) for module in linear]
    inputs = {len(weight): torch.randn(at_once, len(weight), device=weight.device, dtype=dtype) for weight, _ in given}

    def multiply() -> None:
        for weight, count in given:
            for first in range(0, count, at_once):
                product = torch.mm(inputs[len(weight)][: count - first], weight)
        product[0, 0].item()  # waits for a GPU

    return multiply


def seconds(works: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Return how long each method takes, by round: they take turns. On a CPU it is CPU time."""
    clock = time.perf_counter if default_device().type == "cuda" else time.process_time
    times = []
    for _ in range(rounds):
        times.append([])
        for work in works:
            begin = clock()
            work()  # ends with effects on the CPU
            times[-1].append(clock() - begin)
    return times


def peak_mb(method: str) -> float:
    """Return the peak memory of a process that uses one method, or none, with the arguments of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", method]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write_peak(method: str, setting: Setting, sequences: int) -> None:
    """Use one method, or none, and write the peak memory of this process in MB."""
    works = prepare(setting, sequences)
    for work in prepare(SMALL, 8):  # loads what code the methods need, which is no memory of theirs
        work()
    if method != "nothing":
        works[METHODS.index(method) - 1]()
    on_gpu = default_device().type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{peak / 1e6}\n")


def prepare(setting: Setting, sequences: int) -> Works:
    """Make models, a crosscoder and a task."""
    models = [random_model(setting, seed) for seed in range(CHECKPOINTS)]
    task = random_task(setting)
    crosscoder = random_crosscoder(setting, models, task)
    settings = AttributionSettings.model_validate(
        {"steps": STEPS, "batch_size": sequences, "random_directions": 0, "estimator": "published", **COMPLETE}
    )

    def straightforward() -> np.ndarray:
        for model in models:
            model.requires_grad_(True)
        return straightforward_effects(crosscoder, models, setting.site, task, STEPS)

    def measured() -> np.ndarray:
        sites = [resolve_site(model.requires_grad_(False), setting.site) for model in models]
        return measure_effects(crosscoder, sites, task, settings)["effects"].values

    return Works(straightforward, measured)


def random_model(setting: Setting, seed: int) -> PreTrainedModel:
    """Return an untrained model."""
    return gpt_neox(setting.width, setting.blocks, setting.heads, setting.vocabulary, seed)


def random_task(setting: Setting) -> xr.Dataset:
    """Return random tokens in the form of a tokenised task."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(8, 13, size=setting.examples)
    ids = generator.integers(setting.vocabulary, size=(setting.examples, 14))
    tokens = np.where(np.arange(12) < lengths[:, None], ids[:, :12], PADDING)
    columns = {"length": lengths, "right_id": ids[:, 12], "wrong_id": ids[:, 13]}
    variables = {name: ("example", values) for name, values in columns.items()}
    return xr.Dataset({"token_id": (("example", "position"), tokens), **variables})


def random_crosscoder(setting: Setting, models: Sequence[PreTrainedModel], task: xr.Dataset) -> Crosscoder:
    """Return an untrained crosscoder, normalised to the models' activations."""
    own = {"sparsity": "topk", "k": setting.k, "dictionary_size": 8 * setting.width, "steps": 1}
    revisions = tuple(f"step{number}" for number in range(len(models)))
    settings = VARIANTS["topk"].model_validate(own)
    config = CrosscoderConfig("bench", "all", "topk", revisions, setting.site, setting.width, settings, 0, (), False)
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(0))
    ids = torch.from_numpy(row_ids(task, row_batches(task, setting.examples)[0])).to(default_device())
    activations = [resolve_site(model, setting.site).read(ids).activation[:, 1:] for model in models]
    norms = [activation.norm(dim=-1).mean().item() for activation in activations]
    return crosscoder.fold_scale(setting.width**0.5 / torch.tensor(norms)).to(default_device())


def straightforward_effects(
    crosscoder: Crosscoder,
    models: Sequence[PreTrainedModel],
    site: str,
    task: xr.Dataset,
    steps: int,
    batch_size: int = 4,
) -> Float[np.ndarray, "checkpoint example feature"]:
    """Measure the effect of ablating each feature by integrated gradients, as published code does it.

    In batches of few examples, in the task's order and padded on the right, where a causal model does not see it, each
    step of the path clean -> zero is a forward pass of the whole model with logits of the whole vocabulary at every
    position; the losses of all steps are summed, and one backward pass leaves a gradient at every position and feature.
    The models' weights are taken as they come: as loading leaves them they require gradients, which the backward pass
    then adds up as well.

    Args:
        crosscoder: folded.
        models: one for each checkpoint of the crosscoder.
        site: where it reads activations.
        task: as `tokenise_pairs` returns it.
        steps: midpoints of so many equal intervals of the path.
        batch_size: examples in a batch.
    """
    effects = np.zeros((len(models), task.sizes["example"], len(crosscoder.b_enc)), dtype=np.float32)
    modules = [resolve_site(model, site).place.module for model in models]
    device = crosscoder.b_enc.device
    for first in range(0, task.sizes["example"], batch_size):
        examples = task.isel(example=slice(first, first + batch_size))
        wrong, right, lengths = (
            torch.from_numpy(examples[name].values.astype(int)).to(device)
            for name in ("wrong_id", "right_id", "length")
        )
        ids = torch.from_numpy(examples["token_id"].values[:, : lengths.max()].astype(int)).clamp(min=0).to(device)
        x = torch.stack([read_activation(*pair, ids) for pair in zip(models, modules, strict=True)], dim=2)
        f = crosscoder.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        f[:, 0] = 0  # crosscoders are not trained on the first position: it stays clean
        for m, (model, module) in enumerate(zip(models, modules, strict=True)):
            decoder = crosscoder.W_dec[m], crosscoder.b_dec[m]
            metric = partial(metric_with, model, module, ids, wrong, right, lengths)
            gradient = mean_gradient(metric, x[:, :, m], f, decoder, steps)
            effects[m, first : first + batch_size] = (gradient * -f).sum(dim=1).cpu().numpy()
    return effects


def mean_gradient(
    metric: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch position d_model"],
    f: Float[Tensor, "batch position feature"],
    decoder: tuple[Float[Tensor, "feature d_model"], Float[Tensor, " d_model"]],
    steps: int,
) -> Float[Tensor, "batch position feature"]:
    """Return the mean along the path of the gradient of the metric by the codes."""
    W, b = decoder
    error = x - (f @ W + b)
    leaves, losses = [], []
    for step in range(steps):
        alpha = torch.full((x.shape[1], 1), (step + 0.5) / steps, device=x.device)
        alpha[0] = 1
        leaves.append((alpha * f).requires_grad_())
        losses.append(metric(leaves[-1] @ W + b + alpha * error).sum())
    torch.stack(losses).sum().backward()
    return torch.stack([leaf.grad for leaf in leaves]).mean(dim=0)


@torch.no_grad()
def read_activation(
    model: PreTrainedModel, module: nn.Module, ids: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position d_model"]:
    """Return what a module puts out in a pass of the whole model."""
    seen: list[Any] = []
    with module.register_forward_hook(lambda _module, _input, output: seen.append(output)):
        model(input_ids=ids)
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def metric_with(
    model: PreTrainedModel,
    module: nn.Module,
    ids: Int[Tensor, "batch position"],
    wrong: Int[Tensor, " batch"],
    right: Int[Tensor, " batch"],
    lengths: Int[Tensor, " batch"],
    x: Float[Tensor, "batch position d_model"],
) -> Float[Tensor, " batch"]:
    """Return logit(wrong) - logit(right) of a pass of the whole model, a hook replacing what a module puts out by x."""

    def replace(_module: nn.Module, _input: Any, output: Any) -> Any:
        return (x, *output[1:]) if isinstance(output, tuple) else x

    with module.register_forward_hook(replace):
        logits = model(input_ids=ids).logits
    batch = torch.arange(len(ids), device=ids.device)
    return logits[batch, lengths - 1, wrong] - logits[batch, lengths - 1, right]


if __name__ == "__main__":
    main()
