"""What has to hold on a GPU, each against the CPU: for pytest, and for `benchmarks/gpu.py`, which may have no pytest.

A check takes a device and an empty directory. On a CPU, where it proves nothing, it shows that it runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr
from accelerate import dispatch_model
from sparse_problems import SIZES, compare_triton_with_plain, dense, on_active, random_problem, results
from tiny import ARCHITECTURES, OWN_SETTINGS, VOCABULARY, WIDTH, tiny_config, tiny_crosscoder, tiny_model
from torch import Tensor, distributed
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from chronocoder.activations.formats import DTYPES, Stored, StoredFormat, narrow, normalised, widen
from chronocoder.activations.loader import shuffled_batches
from chronocoder.activations.sources import ActivationSource
from chronocoder.activations.streaming import StreamedActivations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.effects import Effects
from chronocoder.attribution.estimators import ESTIMATORS
from chronocoder.attribution.prompts import ZERO, read_prompts
from chronocoder.behaviour.pool import Pool
from chronocoder.config import TWO_STAGES, AttributionSettings, LoadingSettings, MethodSettings, TuningSettings
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig, load_crosscoder
from chronocoder.crosscoder.own_codes import fit_maps, measure_own_codes
from chronocoder.crosscoder.sparse import active_topk, keep_largest
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.team import Team
from chronocoder.crosscoder.training import Trainer, train_crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.suites.checkpoints import load_model, loading_facts
from chronocoder.suites.precision import in_float32, is_full_precision
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.taskspace.losses import Loss, accumulate_gradient
from chronocoder.taskspace.subset import trainable
from chronocoder.taskspace.tuning import Source, tuned

Check = Callable[[torch.device, Path], None]
CPU = torch.device("cpu")
STEPS, CHECKPOINTS = 10, 2
ROUNDED = {"tf32": 0.02, "bfloat16": 0.15}
"""Fraction of the norm of all effects that may differ; on a CPU .003, emulated, and .04 do."""
HALF = {torch.bfloat16: 0.2, torch.float16: 0.03}
"""The same of weights in half precision; on a CPU .05 and .007 do."""
TUNINGS = {
    "ftgd": MethodSettings(objective="differential", fraction=0.05, learning_rate=1e-3),
    "plain": MethodSettings(objective="right", fraction=1.0, learning_rate=1e-3),
}
WEIGHTS = ("encoder_rows", "decoder_rows", "b_enc", "b_dec")


class NotHereError(Exception):
    """A check needs what this machine has not; the message says what."""


class Noise(ActivationSource):
    """Random activations of 3,000 tokens, in a stored format."""

    name, rows, width, checkpoints, piece_rows, in_threads = "noise", 3000, WIDTH, CHECKPOINTS, 100, True

    def __init__(self, stored_format: StoredFormat = "float32") -> None:
        self.stored_format = stored_format

    def read_piece(self, number: int, into: Stored) -> None:
        """Fill a piece with what its number decides."""
        values = torch.randn(len(into.values) * CHECKPOINTS, WIDTH, generator=torch.Generator().manual_seed(number))
        stored = narrow(values, self.stored_format, self.name)
        into.values.copy_(stored.values.view_as(into.values))
        if into.scale is not None and stored.scale is not None:
            into.scale.copy_(stored.scale.view_as(into.scale))


def sparse_products(device: torch.device, _directory: Path) -> None:
    """Values and gradients of sparse products are those of dense ones."""
    for size in SIZES:
        problem = random_problem(size, torch.float32)
        found = results({name: tensor.to(device) for name, tensor in problem.items()}, on_active)
        for name, expected in results(problem, dense).items():
            size = float(expected.detach().abs().max())
            torch.testing.assert_close(found[name].cpu(), expected, rtol=0, atol=1e-5 * (size + 1), msg=name)


def triton_kernels(device: torch.device, _directory: Path) -> None:
    """Compiled Triton kernels give what plain ones do."""
    if device.type == "cpu":
        raise NotHereError("no GPU to compile kernels for")
    if find_spec("triton") is None:
        raise ModuleNotFoundError("triton is not installed: sparse products take PyTorch's slower gathers")
    compare_triton_with_plain(str(device))


def selection(device: torch.device, _directory: Path) -> None:
    """The largest activations of a token and of a batch are those that a CPU selects."""
    generator = torch.Generator().manual_seed(0)
    values, norms = torch.randn(300, 4096, generator=generator), torch.rand(4096, generator=generator)
    for guess in (None, torch.tensor(0.5), torch.tensor(50.0)):
        expected, found = (
            keep_largest(values.to(where), norms.to(where), 3000, guess=guess if guess is None else guess.to(where))
            for where in (CPU, device)
        )
        assert torch.equal(found.smallest.cpu(), expected.smallest)
        for name in ("offsets", "features"):
            assert torch.equal(getattr(found.active, name).cpu(), getattr(expected.active, name))
    masks = []
    for where in (CPU, device):
        active, mask = active_topk(values.to(where), norms.to(where), 10), torch.zeros(300, 4096, dtype=torch.bool)
        mask[active.tokens.cpu(), active.features.cpu()] = True
        masks.append(mask)
    assert torch.equal(*masks) and masks[0].sum() == 3000


def training(device: torch.device, directory: Path) -> None:
    """Ten steps change the weights of every variant as they do on a CPU, but for 2 % of the change."""
    for variant in OWN_SETTINGS:
        config = tiny_config(variant, steps=STEPS)
        initial = Crosscoder(config, torch.Generator().manual_seed(config.seed)).state_dict()
        expected, found = (trained(config, where, directory) for where in (CPU, device))
        _check_changes(initial, expected, found, 0.02, variant)


def training_on_parts(device: torch.device, directory: Path) -> None:
    """Ten steps on batches dealt to parts repeat to the last bit, and are those of whole batches but for rounding."""
    for variant in OWN_SETTINGS:
        config = tiny_config(variant, steps=STEPS)
        initial = Crosscoder(config, torch.Generator().manual_seed(config.seed)).state_dict()
        found, again = (trained(config, device, directory, parts=8) for _ in range(2))
        assert all(torch.equal(value, again[name]) for name, value in found.items()), f"{variant}: does not repeat"
        _check_changes(initial, trained(config, device, directory), found, 0.02, variant)


def training_in_bfloat16(device: torch.device, directory: Path) -> None:
    """Products in bfloat16 change the weights as those in float32 do, but for a tenth of the change."""
    for variant in OWN_SETTINGS:
        config = tiny_config(variant, steps=STEPS)
        initial = Crosscoder(config, torch.Generator().manual_seed(config.seed)).state_dict()
        half = trained(tiny_config(variant, steps=STEPS, precision="bfloat16"), device, directory)
        _check_changes(initial, trained(config, CPU, directory), half, 0.1, variant)


def batches_that_are_not_finite(device: torch.device, directory: Path) -> None:
    """A batch with NaN ends the training and changes no weight."""
    for variant in OWN_SETTINGS:
        trainer = trainer_on(device, tiny_config(variant, steps=STEPS))
        batch = next(shuffled_batches(Noise(), 64, seed=0, device=device))
        trainer.train_step(batch, directory / "rescue")
        before = [value.clone() for value in trainer.crosscoder.parameters()]
        try:
            trainer.train_step(batch._replace(values=torch.full_like(batch.values, torch.nan)), directory / "rescue")
        except NonFiniteError:
            pass
        else:
            raise AssertionError(f"{variant}: no error")
        for value, expected in zip(trainer.crosscoder.parameters(), before, strict=True):
            assert torch.equal(value, expected), f"{variant}: weights have changed"


def resumption(_device: torch.device, directory: Path) -> None:
    """A training that goes on from a saved state ends where it would have ended, but for 2 % of the change."""
    for variant in OWN_SETTINGS:
        config, states = tiny_config(variant, steps=STEPS), StateDirectory(directory / variant, {})
        whole, resumed = (
            train_crosscoder(config, Noise(), states, directory / "rescue", STEPS // 2).crosscoder
            for _ in range(2)  # the second begins at the state that the first one saved
        )
        initial = Crosscoder(config, torch.Generator().manual_seed(config.seed)).fold_scale(whole.scale)
        _check_changes(initial.state_dict(), whole.state_dict(), resumed.state_dict(), 0.02, variant)


def stored_formats(device: torch.device, _directory: Path) -> None:
    """Batches of every stored format, sent to the device, are those of the CPU, and the same once they are float32."""
    scale = torch.tensor([0.5, 3.0])
    for stored_format in DTYPES:
        own, sent = (
            shuffled_batches(Noise(stored_format), 64, seed=0, buffer_tokens=300, device=where)
            for where in (CPU, device)
        )
        for _ in range(60):  # more than an epoch
            expected, found = next(own), next(sent)
            assert torch.equal(found.values.cpu(), expected.values)
            wide = widen(Stored(expected.values.clone(), expected.scale)) * scale[:, None]
            torch.testing.assert_close(normalised(found, scale.to(device)).cpu(), wide, rtol=1e-6, atol=1e-6)
        own.close()
        sent.close()


def streaming(device: torch.device, _directory: Path) -> None:
    """Activations that models compute on the device are those of the CPU, rounded to float16."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (16, 64)).astype(np.int32)
    expected, found = (
        next(shuffled_batches(StreamedActivations(sites_on(where), ids, "float16"), 64, seed=0)).values.float()
        for where in (CPU, device)
    )
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def models(device: torch.device, _directory: Path) -> None:
    """Going on from a site gives the logits of the CPU, in every architecture and at every kind of site."""
    ids = torch.arange(24).view(2, 12)
    for architecture in ARCHITECTURES:
        for name in ("residual.0", "residual.2", "mlp_out.1", "attention_out.1"):
            if architecture == "bloom" and not name.startswith("residual"):
                continue  # its parts add the residual stream themselves
            expected, found = (_resumed(architecture, name, ids.to(where)).cpu() for where in (CPU, device))
            size = float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * size, msg=f"{architecture} {name}")


def effects(device: torch.device, _directory: Path) -> None:
    """Effects by every estimator are those of the CPU."""
    for name in ESTIMATORS:
        settings = AttributionSettings(random_directions=0).model_copy(update={"estimator": name})
        pairs = zip(effects_on(CPU, settings), effects_on(device, settings), strict=True)
        for number, (expected, found) in enumerate(pairs):
            for part, of_device, of_cpu in zip(Effects._fields, found, expected, strict=True):
                size = float(of_cpu.abs().max())
                where = f"{name}, {part}, batch {number}"
                torch.testing.assert_close(of_device.cpu(), of_cpu, rtol=0, atol=2e-4 * size + 1e-6, msg=where)


def precisions(device: torch.device, _directory: Path) -> None:
    """Effects in lower precision are those of the CPU in float32, as nearly as `ROUNDED` says, and leave no trace."""
    before = torch.get_float32_matmul_precision()
    for name in ("attribution_patching", "exact"):
        expected = _features(CPU, name, "float32")
        for precision, tolerance in ROUNDED.items():
            missed = (_features(device, name, precision) - expected).norm() / expected.norm()
            assert missed <= tolerance, f"{name} in {precision}: {missed:.3g} of the effects differ"
            assert precision != "bfloat16" or missed > 1e-4, f"{name}: products are not in bfloat16"
            assert torch.get_float32_matmul_precision() == before, f"{precision} remains in force after {name}"
            assert not torch.is_autocast_enabled(device.type), f"autocast remains in force after {name}"


def two_stages(device: torch.device, _directory: Path) -> None:
    """Two stages measure the features exactly that they do on the CPU, and find the same effects."""
    few = {"exact_features": 3, "exact_controls": 4, "random_features": 4}
    settings = AttributionSettings().model_copy(update={"estimator": TWO_STAGES, "groups": 1, "alone": 1, **few})
    expected, found = (
        measure_effects(crosscoder_on(where, 1.0), sites_on(where), random_task(), settings) for where in (CPU, device)
    )
    assert len(np.unique(expected["estimator"])) == 2, "one of the stages has no features"
    np.testing.assert_array_equal(found["estimator"], expected["estimator"])
    np.testing.assert_array_equal(found["checked_feature"], expected["checked_feature"])
    for name in ("effects", "estimates", "control_effects", "error_effects", "total_effects"):
        size = float(abs(expected[name]).max())
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2e-4 * size + 1e-6, err_msg=name)


def half_precision(device: torch.device, directory: Path) -> None:
    """Effects of weights in half precision are those of the CPU, and of float32 weights of the same values."""
    for dtype, tolerance in HALF.items():
        settings = AttributionSettings(random_directions=0, estimator="exact", smallest_effect=0)
        of_models = [[tiny_model("gpt_neox", seed).to(dtype) for seed in range(CHECKPOINTS)] for _ in range(3)]
        wide, on_cpu, on_device = [of_models[0], of_models[1], [model.to(device) for model in of_models[2]]]
        wide = [model.float() for model in wide]
        found, cpu, expected = (_measured(models, settings) for models in (on_device, on_cpu, wide))
        for name, other in (("the CPU", cpu), ("float32", expected)):
            missed = np.linalg.norm(found - other) / np.linalg.norm(expected)
            assert missed <= tolerance, f"{dtype}: {missed:.3g} of the effects differ from those of {name}"


def quantised_models(device: torch.device, directory: Path) -> None:
    """Models in 8 and 4 bits are read, resumed and differentiated as float32 weights of the same values are."""
    if device.type == "cpu":
        raise NotHereError("no GPU for quantised models")
    if find_spec("bitsandbytes") is None:
        raise NotHereError("bitsandbytes is not installed")
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).to(torch.bfloat16).save_pretrained(directory / "wide")
    ids = torch.arange(24, device=device).view(2, 12)
    for bits in ("8bit", "4bit"):
        model = load_model(directory / "wide", LoadingSettings(quantization=bits))
        assert loading_facts(model)["quantization"] == bits and not is_full_precision(model)
        site = resolve_site(model, "residual.0")
        activation = site.read(ids).activation
        found = site.resume(ids, activation), _gradient(site, ids, activation)
        with in_float32(model):
            expected = site.resume(ids, activation.float()), _gradient(site, ids, activation.float())
        for name, of_device, wide in zip(("logits", "gradient"), found, expected, strict=True):
            missed = (of_device - wide).norm() / wide.norm()
            assert missed < 0.1, f"{bits}: {missed:.3g} of the {name} differ"
        again = site.resume(ids, activation)
        torch.testing.assert_close(again, found[0])


def models_on_two_devices(device: torch.device, _directory: Path) -> None:
    """A model whose last blocks are on the GPU, the others on the CPU, gives what it gives on the CPU."""
    last = "cpu" if device.type == "cpu" else device.index or 0
    where = {"gpt_neox.embed_in": "cpu", "gpt_neox.emb_dropout": "cpu", "gpt_neox.rotary_emb": "cpu"}
    where |= {f"gpt_neox.layers.{block}": last if block else "cpu" for block in range(3)}
    where |= {"gpt_neox.final_layer_norm": last, "lm_head": last}
    plain, spread = ([tiny_model("gpt_neox", seed) for seed in range(CHECKPOINTS)] for _ in range(2))
    spread = [dispatch_model(model, where, main_device="cpu", force_hooks=True) for model in spread]
    ids, answers = torch.arange(24).view(2, 12), torch.tensor([[3, 200], [7, 8]])
    for name in ("residual.0", "residual.1", "residual.2", "mlp_out.1", "attention_out.2"):
        for chosen in (None, answers):
            expected, found = (_resumed_site(resolve_site(models[0], name), ids, chosen) for models in (plain, spread))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)
    settings = AttributionSettings(random_directions=0, estimator="exact")
    np.testing.assert_allclose(_measured(spread, settings), _measured(plain, settings), rtol=1e-3, atol=1e-4)
    (expected,), (found,) = (Pool.of([random_task()]).differences(models[0]) for models in (plain, spread))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def task_spaces(device: torch.device, _directory: Path) -> None:
    """Gradient differentials are those of the CPU; tuning by them changes weights alike, but for 5 % of the change."""
    task = random_task().assign_attrs(task="random")
    for name, method in TUNINGS.items():
        source, settings = Source(task, np.arange(6), seed=0), TuningSettings(steps=5, batch_pairs=4)
        models = [tiny_model("gpt_neox").to(where) for where in (CPU, device)]
        gradients, changes, losses = zip(*(_tuned(model, source, method, settings) for model in models), strict=True)
        size = float(gradients[0].abs().max())
        torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-4 * size, msg=f"{name}: gradient")
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3, atol=1e-4, err_msg=name)
        missed, change = (changes[1] - changes[0]).norm(), changes[0].norm()
        assert missed <= 0.05 * change, f"{name}: {missed:.3g} of a change of {change:.3g} differ"


def own_codes(device: torch.device, _directory: Path) -> None:
    """Own codes miss as much as they do on the CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, CHECKPOINTS, WIDTH, generator=generator) + torch.randn(600, 1, WIDTH, generator=generator)
    odd = torch.arange(600) // 10 % 2 == 1
    crosscoder = tiny_crosscoder().fold_scale(torch.tensor([0.8, 1.3]))
    expected, found = (_own_errors(crosscoder.to(where), x, odd) for where in (CPU, device))
    for of_device, of_cpu in zip(found, expected, strict=True):
        torch.testing.assert_close(of_device, of_cpu, rtol=1e-3, atol=1e-6)


def saved_crosscoders(device: torch.device, directory: Path) -> None:
    """A crosscoder that was saved on the CPU gives the same codes on the device."""
    x = torch.randn(50, CHECKPOINTS, WIDTH, generator=torch.Generator().manual_seed(0))
    for variant in OWN_SETTINGS:
        crosscoder = tiny_crosscoder(variant).fold_scale(torch.tensor([0.8, 1.3]))
        crosscoder.save(directory / variant)
        found = load_crosscoder(directory / variant, device).encode(x.to(device)).cpu()
        torch.testing.assert_close(found, crosscoder.encode(x), rtol=1e-4, atol=1e-4, msg=variant)


def exchange(device: torch.device, directory: Path) -> None:
    """A process group of one, by NCCL on a GPU, forms and adds up."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not distributed.is_available() or not getattr(distributed, f"is_{backend}_available")():
        raise ModuleNotFoundError(f"this build of torch has no {backend}: trainings on several GPUs cannot run")
    meeting = f"file://{directory / 'meeting'}"
    distributed.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
    try:
        value, gathered = torch.arange(5.0, device=device), [torch.empty(5, device=device)]
        distributed.all_reduce(value)
        distributed.all_gather(gathered, value)
        distributed.barrier()
        assert torch.equal(gathered[0].cpu(), torch.arange(5.0))
    finally:
        distributed.destroy_process_group()


CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        sparse_products,
        triton_kernels,
        selection,
        training,
        training_on_parts,
        training_in_bfloat16,
        batches_that_are_not_finite,
        resumption,
        stored_formats,
        streaming,
        models,
        effects,
        precisions,
        half_precision,
        quantised_models,
        models_on_two_devices,
        two_stages,
        task_spaces,
        own_codes,
        saved_crosscoders,
        exchange,
    )
}


def trained(config: CrosscoderConfig, device: torch.device, directory: Path, parts: int = 0) -> dict[str, Tensor]:
    """Train on a device, whatever others there are, and return the weights."""
    trainer = trainer_on(device, config, parts)
    trainer.begin()
    batches = shuffled_batches(Noise(), config.settings.batch_tokens, config.seed, parts=parts, device=device)
    for _ in range(config.settings.steps):
        trainer.train_step(next(batches), directory / "rescue", batches.part_sizes)
    batches.close()
    return {name: value.cpu() for name, value in trainer.crosscoder.state_dict().items()}


def trainer_on(device: torch.device, config: CrosscoderConfig, parts: int = 0) -> Trainer:
    """Return a trainer on a device, whatever others there are."""
    accelerator = SimpleNamespace(device=device, backward=lambda loss: loss.backward())
    return Trainer(config, Noise(), Team(device=device, parts=parts), accelerator)


def _tuned(
    model: PreTrainedModel, source: Source, method: MethodSettings, settings: TuningSettings
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return a gradient, how tuning changes the weights, and its losses; check that it leaves the model as it was."""
    before = _weights(model)
    with trainable(model, settings.embeddings) as parameters:
        loss = Loss.of(source.task, source.pairs, method.objective)
        accumulate_gradient(model, loss, settings.tokens_at_once)
        gradient = torch.cat([one.grad.flatten().cpu() for one in parameters if one.grad is not None])
    with tuned(model, source, "method", method, settings) as tuning:
        change = _weights(model) - before
    assert torch.equal(_weights(model), before), "tuning has changed the model for good"
    return gradient, change, tuning.losses


def _weights(model: PreTrainedModel) -> Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()])


def sites_on(device: torch.device) -> list[Site]:
    """Return a site of two random models."""
    return [resolve_site(tiny_model("gpt_neox", seed).to(device), "residual.1") for seed in range(CHECKPOINTS)]


def crosscoder_on(device: torch.device, written: float) -> Crosscoder:
    """Return a folded random crosscoder; what its features write is multiplied by a number."""
    crosscoder = tiny_crosscoder().fold_scale(torch.tensor([0.8, 1.3]))
    crosscoder.decoder_rows.mul_(written)
    return crosscoder.to(device)


def effects_on(device: torch.device, settings: AttributionSettings, written: float = 0.02) -> Iterator[Effects]:
    """Yield the effects on each batch of a random task at each checkpoint."""
    sites = [replace(site, precision=settings.precision) for site in sites_on(device)]
    for batch in read_prompts(crosscoder_on(device, written), sites, random_task(), ZERO, settings.batch_size):
        for site, prompts in zip(sites, batch.prompts, strict=True):
            yield ESTIMATORS[settings.estimator](site, prompts, settings)


def random_task() -> xr.Dataset:
    """Return six examples with prefixes of three lengths."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (6, 9))
    columns = {"length": np.array([4, 6, 7, 4, 6, 7]), "right_id": ids[:, 7], "wrong_id": ids[:, 8]}
    variables = {name: ("example", values) for name, values in columns.items()}
    return xr.Dataset({"token_id": (("example", "position"), ids[:, :7]), **variables})


def _features(device: torch.device, estimator: str, precision: str) -> Tensor:
    """Return the effects of features on all examples at all checkpoints."""
    settings = AttributionSettings().model_copy(update={"estimator": estimator, "precision": precision})
    return torch.cat([found.features.cpu() for found in effects_on(device, settings, 1.0)])


def _check_changes(
    initial: dict[str, Tensor], expected: dict[str, Tensor], found: dict[str, Tensor], tolerance: float, variant: str
) -> None:
    """Check that weights have changed as they should, by the norm of what differs."""
    for name in WEIGHTS:
        change = (expected[name] - initial[name]).norm()
        missed = (found[name] - expected[name]).norm()
        assert missed <= tolerance * change, f"{variant}, {name}: {missed:.3g} of a change of {change:.3g} differ"


def _measured(models: list[PreTrainedModel], settings: AttributionSettings) -> np.ndarray:
    """Return the effects of features on a random task."""
    sites = [resolve_site(model, "residual.1") for model in models]
    found: np.ndarray = measure_effects(crosscoder_on(models[0].device, 1.0), sites, random_task(), settings)[
        "effects"
    ].values
    return found


def _resumed_site(site: Site, ids: Tensor, answers: Tensor | None) -> Tensor:
    state = site.read(ids)
    return site.resume(ids, 1.1 * state.activation, None if site.is_residual else state.entry, answers=answers)


def _gradient(site: Site, ids: Tensor, activation: Tensor) -> Tensor:
    leaf = activation.clone().requires_grad_()
    logits = site.resume(ids, leaf)
    return torch.autograd.grad(logits[..., 3].sum() - logits[..., 5].sum(), leaf)[0].float()


def _resumed(architecture: str, name: str, ids: Tensor) -> Tensor:
    site = resolve_site(tiny_model(architecture).to(ids.device), name)
    state = site.read(ids)
    return site.resume(ids, 1.1 * state.activation, None if site.is_residual else state.entry)


def _own_errors(crosscoder: Crosscoder, x: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    errors = measure_own_codes(crosscoder, fit_maps(crosscoder, x.split(250), odd), x.split(250), odd)
    return errors.activation.cpu(), errors.code.cpu()
