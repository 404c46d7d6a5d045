"""The DAG on a small nursery: what it makes, what it repeats, and what it refuses."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from chronocoder.crosscoder.model import load_crosscoder
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.tokenizers import load_tokenizer
from experiments import ROOT, Workflow

RUNS = ["pair/l1", "pair/batchtopk", "triplet/batchtopk"]
OF_TWO_TASKS = {"attribute_task": 2, "ablate_task": 2}
AFTER_ATTRIBUTION = {"collect_attributions": 1, "find_examples": 1, "write_report": 1}


def test_every_store_opens_with_labels_and_provenance(nursery: Workflow) -> None:
    stores = sorted((nursery.directory / "results").rglob("*.zarr"))
    assert len(stores) == 2 + 2 + 2 + 2 + 6 + 3 * (2 + 2 + 2 + 2 + 1)
    for path in stores:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = xr.open_zarr(path)
        assert dataset.attrs["suite"] == "small" and dataset.attrs["config_digest"], path
        for name, variable in dataset.data_vars.items():
            assert variable.attrs["long_name"] and variable.attrs["units"], (path, name)


@pytest.mark.parametrize("run", RUNS)
def test_relie_has_the_dimensions_of_the_design(nursery: Workflow, run: str) -> None:
    relie = xr.open_zarr(nursery.directory / f"results/small/{run}/seed0/relie.zarr").load()
    assert relie["relative_indirect_effect"].dims == ("task", "checkpoint", "feature")
    assert relie.sizes["feature"] == 48
    assert list(relie["task"].values) == list(nursery.config["suites"]["small"]["tasks"])
    assert relie["tokens_seen"].dims == ("checkpoint",)
    total = relie["relative_indirect_effect"].sum("checkpoint", skipna=False)
    np.testing.assert_allclose(total.values[~np.isnan(total.values)], 1, rtol=1e-5)
    np.testing.assert_allclose(relie["relative_decoder_norm"].sum("checkpoint"), 1, rtol=1e-5)
    assert [relie.attrs["comparison"], relie.attrs["variant"]] == run.split("/")


def test_checkpoints_are_ordinary_hugging_face_directories(nursery: Workflow) -> None:
    path = nursery.directory / "results/small/checkpoints/step8"
    assert load_model(path).config.model_type == "gpt_neox"
    assert load_tokenizer(path).eos_token == "<|endoftext|>"


def test_comparisons_are_written_down(nursery: Workflow) -> None:
    written = yaml.safe_load((nursery.directory / "results/small/comparisons.yaml").read_text())
    assert written["triplet"]["checkpoints"] == ["step0", "step4", "step8"]
    assert written["pair"]["site"] == "residual.0"


def test_every_job_leaves_a_log_and_a_benchmark(nursery: Workflow) -> None:
    results = nursery.directory / "results/small"
    logs = {path.relative_to(results / "logs").with_suffix("") for path in (results / "logs").rglob("*.log")}
    benchmarks = {path.relative_to(results / "benchmarks").with_suffix("") for path in results.rglob("*.tsv")}
    assert logs == benchmarks and len(logs) == 38


def test_nothing_is_left_to_do(nursery: Workflow) -> None:
    assert nursery.planned() == {}


def test_annotations_beside_the_configuration_rewrite_the_report_alone(nursery: Workflow) -> None:
    path = nursery.directory / "annotations.csv"
    path.write_text("suite,comparison,variant,seed,feature,label,category,note\n")
    planned = nursery.planned()
    path.unlink()
    assert planned == {"write_report": 1} and nursery.planned() == {}


def test_a_changed_variant_reruns_only_what_hangs_on_it(nursery: Workflow) -> None:
    assert nursery.planned(nursery.changed("variants.l1.l1_coefficient", 0.6)) == {
        "train_crosscoder": 1,
        "evaluate_crosscoder": 1,
        **OF_TWO_TASKS,
        **AFTER_ATTRIBUTION,
    }


def test_a_changed_estimator_does_not_train_again(nursery: Workflow) -> None:
    assert nursery.planned(nursery.changed("attribution.steps", 5)) == {
        "attribute_task": 6,
        "ablate_task": 6,
        "collect_attributions": 3,
        "find_examples": 3,
        "write_report": 1,
    }


def test_a_new_task_adds_its_own_jobs(nursery: Workflow) -> None:
    config = nursery.changed("suites.small.tasks.reflexive_number", {"kind": "nursery", "pairs": 40})
    assert nursery.planned(config) == {
        "build_task": 1,
        "score_task": 1,
        "collect_behaviour": 1,
        "attribute_task": 3,
        "ablate_task": 3,
        "collect_attributions": 3,
        "find_examples": 3,
        "write_report": 1,
    }


def test_how_many_tasks_a_job_works_on_is_not_another_result(nursery: Workflow) -> None:
    config = nursery.changed("behaviour", {"tasks_per_job": 1})
    assert nursery.planned(config | {"attribution_jobs": {"tasks_per_job": 5}}) == {}


def test_roles_are_in_the_tasks_stores(nursery: Workflow) -> None:
    task = xr.open_zarr(nursery.directory / "results/small/tasks/agreement_across_prepositional_phrase.zarr").load()
    assert task["role"].dims == ("example", "position") and (task["role"][:, 0] == "separator").all()
    np.testing.assert_array_equal(task["role"] == "", task["token_id"] == -1)
    last = task["role"].isel(position=task["length"] - 1)
    assert (last == "last token").all() and (task["role"] == "subject").any("position").all()


def test_a_new_comparison_adds_its_own_jobs(nursery: Workflow) -> None:
    config = nursery.changed("suites.small.comparisons.late", {"checkpoints": ["step4", "step8"], "variants": ["l1"]})
    assert nursery.planned(config) == {
        "list_comparisons": 1,
        "train_crosscoder": 1,
        "evaluate_crosscoder": 1,
        **OF_TWO_TASKS,
        **AFTER_ATTRIBUTION,
    }


def test_a_new_variant_and_a_new_seed_add_their_own_jobs(nursery: Workflow) -> None:
    wide = {**nursery.config["variants"]["l1"], "dictionary_size": 64}
    one_run = {"train_crosscoder": 1, "evaluate_crosscoder": 1, **OF_TWO_TASKS, **AFTER_ATTRIBUTION}
    assert nursery.planned(nursery.changed("variants.wide", wide)) == one_run
    assert nursery.planned(nursery.changed("seeds", [0, 1])) == {
        "train_crosscoder": 3,
        "evaluate_crosscoder": 3,
        "match_seeds": 3,
        "attribute_task": 6,
        "ablate_task": 6,
        "collect_attributions": 3,
        "find_examples": 3,
        "write_report": 1,
    }


def test_one_target_is_rerun_alone(nursery: Workflow) -> None:
    target = "results/small/pair/l1/seed0/attribution/agreement_simple.zarr"
    before = xr.open_zarr(nursery.directory / target).load()
    assert nursery.planned(None, "--force", target) == {"attribute_task": 1}
    shutil.rmtree(nursery.directory / target)
    result = nursery.snakemake(target)
    assert result.returncode == 0, result.stdout
    after = xr.open_zarr(nursery.directory / target).load()
    xr.testing.assert_equal(before, after)
    assert nursery.snakemake("--touch").returncode == 0  # the other tests want an up-to-date state


def test_streaming_trains_the_same_crosscoder_and_stores_no_training_activations(
    nursery: Workflow, tmp_path: Path
) -> None:
    streaming = Workflow(tmp_path / "streaming", nursery.changed("training", {"activations": "streaming"}))
    shutil.copytree(nursery.directory, streaming.directory)
    shutil.rmtree(streaming.directory / "results/small/activations")
    run = "results/small/pair/batchtopk/seed0"
    result = streaming.snakemake(f"{run}/evaluation.zarr")
    assert result.returncode == 0, result.stdout
    stores = {path.name for path in (streaming.directory / "results/small/activations").glob("*/*/*.zarr")}
    assert stores == {"validation.zarr"}
    cached, streamed = (load_crosscoder(flow.directory / run / "crosscoder") for flow in (nursery, streaming))
    for name, weight in cached.state_dict().items():  # a rounding step of float16 may differ
        torch.testing.assert_close(streamed.state_dict()[name], weight, rtol=1e-2, atol=1e-2, msg=name)
    assert streamed.config == cached.config


def test_tasks_and_processes_may_share_a_job_and_seeds_are_matched(nursery: Workflow, tmp_path: Path) -> None:
    config = nursery.changed("attribution_jobs", {"tasks_per_job": 2, "processes": 2})
    config["seeds"] = [0, 1]
    shared = Workflow(tmp_path / "shared", config)
    shutil.copytree(nursery.directory, shared.directory)
    ablation = "results/small/pair/batchtopk/seed0/ablation/agreement_simple.zarr"
    result = shared.snakemake("results/small/pair/batchtopk/seeds.zarr", ablation)
    assert result.returncode == 0, result.stdout
    logs = sorted((shared.directory / "results/small/logs/attribute_task").glob("*seed1*"))
    made_by = "The result was made by the job of task agreement_"
    assert sorted(made_by in log.read_text() for log in logs) == [False, True]
    alone, together = (
        xr.open_zarr(flow.directory / "results/small/pair/batchtopk/seed0/relie.zarr").load()
        for flow in (nursery, shared)
    )
    assert list(alone) == list(together)
    for name, values in alone.data_vars.items():
        if values.dtype.kind == "f":  # shares of effects as small as rounding may be anything
            tolerance = 0.02 if "relative" in str(name) else 1e-5
            xr.testing.assert_allclose(together[name], values, rtol=1e-3, atol=tolerance)
    assert (together["feature_class"] == alone["feature_class"]).mean() > 0.99
    alone, together = (xr.open_zarr(flow.directory / ablation).load() for flow in (nursery, shared))
    for name in ("indirect_effect", "log_probability_change", "top_set_effect", "random_set_accuracy"):
        xr.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-4)
    seeds = xr.open_zarr(shared.directory / "results/small/pair/batchtopk/seeds.zarr").load()
    assert seeds.attrs["seeds"] == [0, 1] and list(seeds["seed"].values) == [1]
    assert (seeds["matched_feature"] >= 0).any() and seeds["class_agreement"].dims[0] == "seed"


def test_target_with_a_misspelt_task_fails_while_the_dag_is_built(nursery: Workflow) -> None:
    result = nursery.snakemake("--dry-run", "results/small/pair/l1/seed0/attribution/agreement_simpl.zarr")
    assert result.returncode != 0 and "No rule to produce" in result.stdout


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants.l1.lambda", 1, "variants.l1.lambda: unknown key; remove it or correct its spelling"),
        (
            "suites.small.tasks.extra",
            {"kind": "blimp", "path": "nowhere.jsonl"},
            "suites.small.tasks.extra.path 'nowhere.jsonl': there is no such file; correct it, or remove the task",
        ),
    ],
)
@pytest.mark.parametrize("target", ["all", "results/small/similarity.zarr"])
def test_wrong_input_stops_any_target_before_anything_runs(
    nursery: Workflow, path: str, value: object, message: str, target: str
) -> None:
    """The whole table is in tests/unit/test_wrong_inputs.py."""
    result = nursery.snakemake(target, config=nursery.changed(path, value))
    assert result.returncode == 1 and message in result.stdout
    assert "Traceback" not in result.stdout and ".smk" not in result.stdout


def test_deleted_stores_that_the_report_shows_are_made_again(nursery: Workflow) -> None:
    places = ["similarity.zarr", "pair/l1/seed0/features.zarr", "triplet/batchtopk/seed0/training.zarr"]
    stores = [nursery.directory / "results/small" / place for place in places]
    aside = [store.rename(store.with_name("aside")) for store in stores]
    planned = nursery.planned()
    for store, kept in zip(stores, aside, strict=True):
        kept.rename(store)
    assert {"compare_checkpoints", "find_examples", "train_crosscoder", "write_report"} <= planned.keys()
    assert planned["find_examples"] == 2 and planned["train_crosscoder"] == 1


def test_slurm_profile_is_found_from_the_root_and_misses_slurm_at_once(nursery: Workflow, tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to("/bin/bash")
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(nursery.config))
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(tmp_path)]
    command += ["--configfile", str(tmp_path / "experiment.yaml")]
    result = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Using profile slurm" in result.stderr
    assert "submitit-cluster slurm: sbatch, squeue, scancel" in result.stderr
    assert "not found; call this where jobs can be" in result.stderr
