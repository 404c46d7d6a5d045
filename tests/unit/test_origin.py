"""What a crosscoder is judged on has to be what it was trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tiny import tiny_config, tiny_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import Origin, origin_of
from chronocoder.activations.streaming import stream_checkpoints
from chronocoder.config import HarvestSettings
from chronocoder.crosscoder.evaluation import check_origin
from chronocoder.errors import ConfigError, StoreError

ORIGIN = Origin("tiny", "residual.1", ("step0", "step1"), ("", ""), "t", "float32")
REVISIONS = ["step0", "step1"]


def test_what_it_was_trained_on_is_taken() -> None:
    check_origin(tiny_config("l1"), ORIGIN, REVISIONS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"revisions": ("step1", "step0")},
            r"of the activations: the crosscoder is of \('step0', 'step1'\)",
        ),
        (
            {"site": "residual.2"},
            "the crosscoder is of residual.1, not of residual.2; give what it was trained on",
        ),
        ({"commits": ("", "other")}, "commits: the crosscoder is of"),
        ({"suite": "large"}, "suite: the crosscoder is of tiny, not of large"),
    ],
)
def test_other_activations_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        check_origin(tiny_config("l1"), ORIGIN._replace(**changed), REVISIONS)


def test_other_checkpoints_are_refused() -> None:
    with pytest.raises(StoreError, match=r"^checkpoints: the crosscoder is of"):
        check_origin(tiny_config("l1"), ORIGIN, ["step0", "step2"])


def test_one_checkpoint_throughout_is_an_identity(activation_store: Callable[..., Path]) -> None:
    path = activation_store("step0")
    stores = ActivationStores([path] * 3)
    origin = origin_of(stores)
    assert origin.revisions == ("step0", "step0#2", "step0#3") and origin.commits == ("c",) * 3
    blocks = stores.read(0, 50)
    assert (blocks[:, 0] == blocks[:, 1]).all() and (blocks[:, 0] == blocks[:, 2]).all()
    config = replace(tiny_config("l1", 3), checkpoints=origin.revisions, commits=origin.commits)
    check_origin(config, origin, ["step0", "step0#2", "step0#3"])


def test_a_checkpoint_that_is_given_twice_among_others_is_refused(activation_store: Callable[..., Path]) -> None:
    first, other = activation_store("step0"), activation_store("step1")
    message = "stores of step0, step0, step1: one checkpoint is there twice, but not throughout; give each once, or the"
    with pytest.raises(StoreError, match=message):
        origin_of(ActivationStores([first, first, other]))


def test_models_of_other_vocabularies_are_refused(tmp_path: Path) -> None:
    paths = {"step0": tmp_path / "model", "step0@twin": tmp_path / "other"}
    tiny_model("gpt_neox").save_pretrained(paths["step0"])
    sizes = {"intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=200, hidden_size=8, **sizes)).save_pretrained(paths["step0@twin"])

    def stream(token: int) -> None:
        corpus = xr.Dataset({"token_ids": (("sequence", "position"), np.full((4, 9), token, dtype=np.int32))})
        stream_checkpoints("tiny", paths, "residual.1", corpus, HarvestSettings())

    stream(199)
    with pytest.raises(
        ConfigError, match="other: the text has token 200, but the model knows only 200 tokens; compare"
    ):
        stream(200)
