"""What a crosscoder is judged on has to be what it was trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_config

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import Origin, origin_of
from chronocoder.crosscoder.evaluation import check_origin
from chronocoder.errors import StoreError

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


def test_a_checkpoint_that_is_given_twice_is_refused(activation_store: Callable[..., Path]) -> None:
    path = activation_store("step0")
    with pytest.raises(StoreError, match="stores of step0, step0: one checkpoint is there twice; give each once"):
        origin_of(ActivationStores([path, path]))
