"""Stores and their features, as a terminal shows them."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_stores import example_store, of_sentences, six_features, with_facts
from warm_python import warm_python

from chronocoder.errors import StoreError
from chronocoder.inspection import effects_on, features_text, own_examples, store_text, stores_below
from chronocoder.report.annotations import Annotation
from chronocoder.stores import labelled, open_store, strings, write_store
from chronocoder.terminal import printable, shortened, table

SCRIPT = Path(__file__).parents[2] / "scripts" / "inspect_store.py"
RUN = {"comparison": "pair", "variant": "l1", "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory with effects and examples of a run."""
    for name, store in (("relie", six_features()), ("features", example_store())):
        whole = with_facts(store, **RUN)
        write_store(whole, tmp_path / "run" / f"{name}.zarr", whole.attrs)
    return tmp_path / "run"


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([warm_python(), str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def cells(text: str) -> list[list[str]]:
    """The rows of a table's body, up to the first empty line."""
    lines = text.split("\n\n")[0].splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("  feature"))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[heading + 1 :]]


def test_a_store_says_what_it_holds(run: Path) -> None:
    with open_store(run / "relie.zarr") as store:
        text = store_text(store)
        for name, of in store.data_vars.items():
            (line,) = re.findall(rf"^  {name} .*$", text, flags=re.MULTILINE)
            assert line.endswith(of.attrs["long_name"]) and ", ".join(of.dims) in line
            assert ("string" if of.dtype.kind == "T" else str(of.dtype)) in line
    assert re.search(r"^  checkpoint +2 +step10, step20$", text, flags=re.MULTILINE)
    assert re.search(r"^  feature +6 +0, 1, 2, … 5$", text, flags=re.MULTILINE)
    assert re.search(r"^  settings\.confidence +0\.95$", text, flags=re.MULTILINE)
    assert re.search(r"^  package_versions\.zarr +3", text, flags=re.MULTILINE)
    assert re.search(r"^  comparison +pair$", text, flags=re.MULTILINE)


def test_features_come_by_their_largest_effect(run: Path) -> None:
    relie = with_facts(six_features(), **RUN)
    text = features_text(effects_on(relie, "far"), 3, with_facts(example_store(), **RUN))
    assert text.startswith("pair · l1 · seed 0: far\n3 of 6 features, by the largest |IE| at any checkpoint\n")
    size = abs(relie["indirect_effect"].sel(task="far")).max("checkpoint").values
    assert [row[0] for row in cells(text)[::2]] == [str(feature) for feature in np.argsort(-size, kind="stable")[:3]]
    assert cells(text)[:2] == [
        ["1", "step10", "+0.000", "−0.10 to +0.10", "±0.05", "no", "0.00", "0.00 to 0.00", "emerged"],
        ["step20", "+2.00", "+1.90 to +2.10", "±0.05", "yes", "1.00", "1.00 to 1.00"],
    ]
    assert "IE in logits" in text and "95% over prefixes" in text


def test_features_have_their_words_and_none_without_effect_is_shown() -> None:
    relie = with_facts(six_features(), **RUN)
    text = features_text(effects_on(relie, "near"), 100, with_facts(example_store(), **RUN))
    assert {row[0] for row in cells(text)[::2]} == {"0", "2", "3"}
    assert cells(text)[0][-1] == "children, oxen"
    assert cells(features_text(effects_on(relie, "near"), 1))[0][-1] == "discontinued"


def test_annotations_stand_before_the_words() -> None:
    relie = with_facts(six_features(), **RUN)
    place = ("toy", "pair", "l1", 0)
    annotations = [
        Annotation(*place, feature=0, label="young", category="", note="see [1]\x1b"),
        Annotation(*place, feature=2, label="", category="number", note=""),
        Annotation("other", *place[1:], feature=3, label="of another suite", category="", note=""),
    ]
    examples = with_facts(example_store(), **RUN)
    rows = cells(features_text(effects_on(relie, "near"), 3, examples, annotations))
    about = {row[0]: row[-1] for row in rows[::2]}
    assert about == {"0": r"young · see [1]\x1b: children, oxen", "2": "number", "3": "discontinued"}


def test_effects_on_one_task_read_alike_from_either_store() -> None:
    relie = with_facts(of_sentences(six_features()), **RUN)
    alone = relie.sel(task="far", drop=True).drop_vars(["language", "phenomenon", "metric", "unit"], errors="ignore")
    alone = alone.assign_attrs(task="far", unit="nat")
    assert features_text(effects_on(alone, "far"), 3) == features_text(effects_on(relie, "far"), 3)
    assert "IE in nats" in features_text(effects_on(relie, "far"), 3)


def test_what_is_wrong_with_a_store_is_said() -> None:
    relie = with_facts(six_features(), **RUN)
    with pytest.raises(StoreError, match=r"^--task other is not in the store; its tasks are near, far$"):
        effects_on(relie, "other")
    with pytest.raises(
        StoreError, match=r"no effects of features on a task: it lacks feature_class; give relie\.zarr of a run"
    ):
        effects_on(relie.drop_vars("feature_class"), "near")
    examples = with_facts(example_store(), **RUN | {"seed": 1})
    with pytest.raises(
        StoreError, match="examples are of pair · l1 · seed 1, effects of pair · l1 · seed 0; give those"
    ):
        features_text(effects_on(relie, "near"), 1, examples)


def test_text_of_tokens_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b[31m\nb\u202eé\x9b") == r"a\x1b[31m\nb\u202eé\x9b"
    hostile = xr.Dataset(
        {"text": labelled(("word",), np.zeros(2), "what\x07 it is")}, coords={"word": strings(["\x1b[2J", "é"])}
    )
    text = store_text(hostile.assign_attrs(note="\x1b]0;title\x07"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert r"\x1b[2J, é" in text and r"\x1b]0;title\x07" in text


def test_tables_are_as_wide_as_their_cells() -> None:
    assert table("T", ("a", "b"), [("long", "x"), ("", "yy")]) == "T\n  a     b\n  long  x\n        yy"
    assert shortened(1_250_000_000, "B") == "1.25 GB" and shortened(0, "B") == "-"


def test_own_examples_are_those_of_the_run(run: Path) -> None:
    examples = run / "features.zarr"
    assert own_examples(run / "relie.zarr") == own_examples(run / "attribution" / "near.zarr") == examples
    assert own_examples(run / "a" / "b" / "c.zarr") is None


def test_a_directory_lists_its_stores(run: Path) -> None:
    text = stores_below(run.parent)
    size = sum(file.stat().st_size for file in (run / "relie.zarr").rglob("*") if file.is_file())
    assert re.search(rf"^  run/relie.zarr +{shortened(size, 'B')}$", text, flags=re.MULTILINE)
    assert len(text.splitlines()) == 4
    with pytest.raises(StoreError, match="neither a store nor a directory of stores; give one below results"):
        stores_below(run / "relie.zarr" / "feature")


def test_script_prints_stores_and_features(run: Path) -> None:
    assert call(run).stdout == stores_below(run)
    assert "Provenance" in call(run / "features.zarr").stdout
    shown = call(run / "relie.zarr", "--task", "near", "--top", "1").stdout
    assert [row[-1] for row in cells(shown)] == ["children, oxen", "0.00 to 0.00"]
    for arguments, message in (
        (["--task", "no"], "--task no is not in the store; its tasks are near, far"),
        (["--task", "near", "--top", "0"], "--top 0 leaves nothing to print; give 1 or more"),
    ):
        failed = call(run / "relie.zarr", *arguments)
        assert failed.returncode == 1 and message in failed.stderr and "Traceback" not in failed.stderr
    directory = call(run, "--task", "near")
    assert directory.returncode == 1 and f"--task near: {run} is no store; give relie.zarr" in directory.stderr
    missing = call(run / "none.zarr")
    assert missing.returncode == 1 and f"{run / 'none.zarr'}: does not exist" in missing.stderr
