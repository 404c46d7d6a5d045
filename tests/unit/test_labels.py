"""Names of a comparison's checkpoints, and what tells them apart."""

import subprocess
import sys

import pytest

from chronocoder.labels import (
    control_of,
    distinct_labels,
    is_examined,
    is_foreign,
    is_identity,
    place_of,
)

CASES = [
    (["step1"], ["step1"], "", False),
    (["step1", "step2"], ["step1", "step2"], "", True),
    (["step1", "step1"], ["step1", "step1#2"], "identity", False),
    (["step1"] * 3, ["step1", "step1#2", "step1#3"], "identity", False),
    (["step1", "step1@twin"], ["step1", "step1@twin"], "pretraining seed", False),
    (["step1@twin", "step1@twin"], ["step1@twin", "step1@twin#2"], "identity", False),
    (["step1@twin"], ["step1@twin"], "", False),
]


@pytest.mark.parametrize(("names", "labels", "control", "examined"), CASES)
def test_labels_and_controls(names: list[str], labels: list[str], control: str, examined: bool) -> None:
    assert list(distinct_labels(names)) == labels and len(set(labels)) == len(labels)
    for given in (names, labels):
        assert control_of(given) == control
        assert is_identity(given) == (control == "identity")
        assert is_examined(given) == examined


def test_places() -> None:
    assert place_of("step1", "own") == ("own", "step1") and not is_foreign("step1")
    assert place_of("step1@twin", "own") == ("twin", "step1") and is_foreign("step1@twin")


def test_labels_import_nothing_heavy() -> None:
    code = "import sys, chronocoder.labels; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pydantic"} & set(modules)
