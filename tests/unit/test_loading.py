"""Models in the number format of their files or in another one, and what is measured of them."""

import json
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import folded_crosscoder
from tiny import ARCHITECTURES, VOCABULARY, WIDTH, tiny_crosscoder, tiny_model
from torch import Tensor

from chronocoder.activations.harvest import read_activations
from chronocoder.attribution.ablation import measure_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.precision import with_precision
from chronocoder.attribution.summary import summarise_effects
from chronocoder.behaviour.pool import Pool
from chronocoder.config import AblationSettings, AttributionSettings, EvaluationSettings, LoadingSettings
from chronocoder.crosscoder.evaluation import measure_cross_entropy
from chronocoder.crosscoder.own_codes import fit_maps
from chronocoder.errors import ConfigError, NonFiniteError
from chronocoder.suites import checkpoints, precision
from chronocoder.suites.checkpoints import ModelsInTurn, joint_loading_facts, load_model
from chronocoder.suites.precision import in_float32, logits_in_float32
from chronocoder.suites.sites import Site, resolve_site

IDS = torch.arange(24).view(2, 12)
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MISSED = {"bfloat16": 0.2, "float16": 0.03}
"""Fraction of the norm of all effects that may differ from those in float32, with the same weights; .05 and .007 do."""


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves a random model in a number format."""

    def save(dtype: str = "float32", architecture: str = "gpt_neox", seed: int = 0) -> Path:
        path = tmp_path / f"{architecture}-{dtype}-{seed}"
        tiny_model(architecture, seed).to(getattr(torch, dtype)).save_pretrained(path)
        return path

    return save


def half_sites(dtype: str, architecture: str = "gpt_neox", name: str = "residual.1") -> list[Site]:
    return [resolve_site(tiny_model(architecture, seed).to(HALF[dtype]), name) for seed in (0, 1)]


def wide_sites(sites: list[Site]) -> list[Site]:
    """Return the same weights in models of float32."""
    return [resolve_site(deepcopy(site.model).float(), site.name) for site in sites]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_loaded_as_they_were_saved_or_as_asked_for(saved: Callable[..., Path], dtype: str) -> None:
    path = saved(dtype)
    facts = {"model_dtype": dtype, "attention": "sdpa", "quantization": "none"}
    assert checkpoints.loading_facts(load_model(path)) == facts
    for asked in ("float32", "bfloat16", "float16"):
        model = load_model(path, LoadingSettings(dtype=asked, attention="eager"))
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, asked)}
        assert checkpoints.loading_facts(model) == {**facts, "model_dtype": asked, "attention": "eager"}
        assert torch.isfinite(model(input_ids=IDS).logits).all()  # on a CPU too


def test_what_was_saved_counts_and_not_what_the_configuration_says(saved: Callable[..., Path]) -> None:
    path = saved("bfloat16")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, "dtype": "float16"}), encoding="utf-8")
    assert load_model(path).dtype == torch.bfloat16
    (path / "model.safetensors").rename(path / "elsewhere")
    assert checkpoints.dtype_of(path, LoadingSettings()) == "auto"


def test_stores_say_how_models_were_loaded(saved: Callable[..., Path]) -> None:
    models = ModelsInTurn({"step0": saved("float32"), "step1": saved("bfloat16")})
    taken = [model for _, model in models]
    expected = {"model_dtype": ["float32", "bfloat16"], "attention": ["sdpa"] * 2, "quantization": ["none"] * 2}
    assert models.facts == joint_loading_facts(taken) == expected


def test_attention_that_cannot_be_had_is_named(saved: Callable[..., Path]) -> None:
    if find_spec("flash_attn") is not None:
        pytest.skip("flash-attn is installed")
    message = (
        r"gpt_neox-float32-0: loading\.attention flash_attention_2 cannot be had \(.*\); install what it needs, or"
    )
    with pytest.raises(ConfigError, match=message):
        load_model(saved(), LoadingSettings(attention="flash_attention_2"))
    with pytest.raises(
        ValueError, match="attention flash_attention_2: computes no dtype float32; set dtype to bfloat16"
    ):
        LoadingSettings(attention="flash_attention_2", dtype="float32")


def test_gpus_without_a_device_map_are_refused() -> None:
    with pytest.raises(
        ValueError, match="gpus 2: a model is loaded on one of them; set device_map to auto, or gpus to"
    ):
        LoadingSettings(gpus=2)


def test_a_device_map_changes_no_result(saved: Callable[..., Path]) -> None:
    """On a CPU it is of one device; on several it is tried by `gpu_checks.py`."""
    path = saved()
    mapped, plain = load_model(path, LoadingSettings(device_map="auto")), load_model(path)
    for name in ("residual.1", "mlp_out.1"):
        found, expected = (resumed(resolve_site(model, name)) for model in (mapped, plain))
        torch.testing.assert_close(found, expected)


def test_missing_bitsandbytes_is_named(saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "find_spec", lambda _: None)
    message = "loading.quantization 8bit: bitsandbytes is not installed; run `pip install bitsandbytes`, or set"
    with pytest.raises(ConfigError, match=message):
        load_model(saved(), LoadingSettings(quantization="8bit"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_quantised_models_without_a_gpu_are_refused(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "find_spec", lambda _: True)
    message = (
        "loading.quantization 4bit: there is no GPU here; run it where there is one, or set loading.quantization to"
    )
    with pytest.raises(ConfigError, match=message):
        load_model(saved(), LoadingSettings(quantization="4bit"))


def resumed(site: Site) -> Tensor:
    state = site.read(IDS)
    return site.resume(IDS, 1.1 * state.activation, None if site.is_residual else state.entry)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_logits_are_of_float32_whatever_the_weights(dtype: str, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "ROWS_AT_ONCE", 7)  # parts that do not come out even
    embedding = torch.nn.Linear(WIDTH, 30, bias=biased).to(HALF[dtype]).requires_grad_(False)
    hidden = torch.randn(2, 3, WIDTH, dtype=HALF[dtype]).requires_grad_()
    with logits_in_float32(embedding):
        found = embedding(hidden)
    weight, bias = embedding.weight.double(), 0 if embedding.bias is None else embedding.bias.double()
    wide = hidden.detach().double().requires_grad_()
    expected = wide @ weight.T + bias
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn(2, 3, 30)
    (gradient,) = torch.autograd.grad((found * direction).sum(), hidden)
    (slow,) = torch.autograd.grad((expected * direction).sum(), wide)
    torch.testing.assert_close(gradient, slow.to(gradient.dtype), rtol=0.01, atol=0.01)
    assert embedding(hidden).dtype == HALF[dtype]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_answers_in_half_precision_are_those_of_the_vocabulary(architecture: str) -> None:
    place = half_sites("bfloat16", architecture)[0]
    answers = torch.tensor([[3, 200], [7, 8]])
    state = place.read(IDS)
    found = place.resume(IDS, state.activation, answers=answers)
    whole = place.resume(IDS, state.activation)
    assert found.dtype == whole.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], whole[:, 0].gather(1, answers), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", HALF)
def test_float32_for_a_while_computes_as_a_copy_in_float32(dtype: str, architecture: str) -> None:
    place = half_sites(dtype, architecture)[0]
    before = {name: value.clone() for name, value in place.model.state_dict().items()}
    (wide,) = wide_sites([place])
    state = place.read(IDS)
    with in_float32(place.model, place.skipped):
        found = place.resume(IDS, state.activation.float())
        assert {parameter.dtype for block in place.skipped for parameter in block.parameters()} == {HALF[dtype]}
    torch.testing.assert_close(found, wide.resume(IDS, state.activation.float()), rtol=1e-5, atol=1e-5)
    for name, value in place.model.state_dict().items():
        assert value.dtype == HALF[dtype] and torch.equal(value, before[name])


@pytest.mark.parametrize("name", ["residual.0", "residual.2", "mlp_out.1", "attention_out.1"])
@pytest.mark.parametrize("dtype", HALF)
def test_sites_are_found_in_half_precision(dtype: str, name: str) -> None:
    for architecture in ARCHITECTURES:
        if architecture != "bloom" or name.startswith("residual"):
            place = half_sites(dtype, architecture, name)[0]
            wide = wide_sites([place])[0]
            assert (place.keeps_past, place.trimmable == ()) == (wide.keeps_past, wide.trimmable == ())
            missed = (resumed(place) - resumed(wide)).norm() / resumed(wide).norm()
            assert missed < 16 * torch.finfo(HALF[dtype]).eps


@pytest.mark.parametrize("estimator", ["exact", "grouped_gradients", "attribution_patching", "published", "two_stages"])
@pytest.mark.parametrize("dtype", HALF)
def test_effects_in_half_precision_are_those_in_float32_but_for_rounding(
    dtype: str, estimator: str, task: xr.Dataset
) -> None:
    settings = AttributionSettings(estimator=estimator, smallest_effect=0, token_threshold=0, exact_controls=5)
    sites = half_sites(dtype)
    found = measure_effects(folded_crosscoder(1), sites, task, settings)
    expected = measure_effects(folded_crosscoder(1), wide_sites(sites), task, settings)
    for name in ("effects", "total_effects", "clean_metric"):
        missed = np.linalg.norm(found[name] - expected[name]) / np.linalg.norm(expected[name])
        assert 0 < missed < MISSED[dtype], (name, missed)
    assert all(
        values.dtype in (np.float32, np.float64) for values in found.data_vars.values() if values.dtype.kind == "f"
    )


def test_rounding_of_weights_is_measured_and_refused(task: xr.Dataset) -> None:
    def floor(dtype: str) -> float:
        settings = AttributionSettings(estimator="exact", smallest_effect=0)
        return float(measure_effects(folded_crosscoder(1), half_sites(dtype), task, settings)["rounding"].mean())

    assert floor("bfloat16") > 3 * floor("float16") > 0
    message = (
        r"loading\.dtype bfloat16: at checkpoint step0 rounding changes an effect by .*, more than"
        r" attribution\.smallest_effect 1e-05; set loading\.dtype to float32, or a larger smallest_effect"
    )
    with pytest.raises(ConfigError, match=message):
        measure_effects(folded_crosscoder(1), half_sites("bfloat16"), task, AttributionSettings(smallest_effect=1e-5))


def test_products_of_half_precision_weights_stay_in_it() -> None:
    (place, _), (wide, _) = half_sites("float16"), wide_sites(half_sites("float16"))
    assert with_precision(place, "bfloat16").precision == "float32"
    assert with_precision(wide, "bfloat16").precision == "bfloat16"


def test_ablations_and_cross_entropies_are_measured_in_half_precision(task: xr.Dataset) -> None:
    settings = AttributionSettings(estimator="exact", smallest_effect=0, bootstrap_samples=20)
    ablation = AblationSettings(top_features=3, set_sizes=[1, 3], random_sets=1)
    crosscoder, sites = folded_crosscoder(1), half_sites("bfloat16")
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (6, 10))
    for where in (sites, wide_sites(sites)):
        measured = measure_effects(crosscoder, where, task, settings)
        norms = crosscoder.decoder_norms.numpy()
        attribution = summarise_effects(measured, task, norms, {"step0": 0, "step1": 10}, settings)
        found = measure_ablations(crosscoder, where, task, attribution, settings, ablation)
        assert all(np.isfinite(values).all() for values in found.data_vars.values())
    x = torch.stack([torch.cat([rows.activations for rows in read_activations(site, ids, 6)]) for site in sites], dim=1)
    assert x.dtype == torch.float32
    joint = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    maps = fit_maps(joint, [x], torch.arange(len(x)) // 9 % 2 == 1)
    evaluation = EvaluationSettings(sequences=6, batch_size=6)
    entropies, wide = (measure_cross_entropy(joint, maps, of, ids, evaluation) for of in (sites, wide_sites(sites)))
    np.testing.assert_allclose(entropies.clean, wide.clean, rtol=0.01)
    np.testing.assert_allclose(entropies.spliced, wide.spliced, rtol=0.05)


def test_scores_in_half_precision_have_digits(task: xr.Dataset) -> None:
    """A difference of logits is as fine as what the output embedding reads allows, not as its own format."""
    model = tiny_model("gpt_neox").to(torch.bfloat16)
    with torch.no_grad():  # large logits, whose differences in bfloat16 are multiples of 2 and more
        model.get_output_embeddings().weight.mul_(200)
    (found,) = Pool.of([task]).differences(model)
    assert np.abs(found - found.astype(int)).max() > 1e-3


@pytest.mark.parametrize("name", ["residual.1", "mlp_out.1"])
def test_overflow_in_float16_is_named_with_its_remedy(name: str, task: xr.Dataset) -> None:
    remedy = "float16 overflows above 65504, or the checkpoint is damaged; set loading.dtype to float32 or bfloat16"
    sites = half_sites("float16", "gpt_neox", name)
    for site in sites:
        site.model.get_input_embeddings().weight.mul_(1e7)
    with pytest.raises(NonFiniteError, match=f"site {name}: non-finite activation in sequence 0; {remedy}"):
        next(read_activations(sites[0], IDS.numpy(), 2))
    crosscoder = folded_crosscoder(1, name)
    with pytest.raises(NonFiniteError, match=f"activations at checkpoint step0 are not finite; {remedy}"):
        measure_effects(crosscoder, sites, task, AttributionSettings())
    with pytest.raises(NonFiniteError, match=f"differences of right and wrong are not finite; {remedy}"):
        Pool.of([task]).differences(sites[0].model)


def test_overflow_after_the_site_is_named(task: xr.Dataset) -> None:
    sites = half_sites("float16")
    for site in sites:
        site.model.get_output_embeddings().weight.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="at checkpoint step0 are not finite; float16 overflows above 65504"):
        measure_effects(folded_crosscoder(1), sites, task, AttributionSettings(smallest_effect=0))
    ids, maps = np.full((2, 6), 5), _maps()
    with pytest.raises(NonFiniteError, match="cross-entropies at checkpoint step0 are not finite; float16 overflows"):
        measure_cross_entropy(tiny_crosscoder("l1"), maps, sites, ids, EvaluationSettings())


def _maps():
    x = torch.randn(40, 2, WIDTH)
    return fit_maps(tiny_crosscoder("l1"), [x], torch.arange(40) % 2 == 1)
