# Chronocoder: from the checkpoints of a pretraining run to the features it learns, keeps and loses.
#
# Result paths (all made in src/chronocoder/layout.py; wildcards come from the configuration):
#   results/{suite}/corpus/{split}.zarr, tasks/{task}.zarr, behaviour.zarr, similarity.zarr
#   results/{suite}/activations/{site}/{revision}/{split}.zarr
#   results/{suite}/{comparison}/{variant}/seed{seed}/crosscoder, evaluation.zarr, attribution/{task}.zarr, relie.zarr
#   results/{suite}/taskspace/tunings/{revision}/seed{tuning_seed}/{task}.zarr, transfer.zarr, gradients.zarr, space.zarr
#   results/{suite}/report/index.html, results/{suite}/scan_report/index.html
from snakemake.utils import min_version

min_version("9.0")


if "suites" not in config and not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/suites.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/behaviour.smk"
include: "workflow/rules/scan.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/crosscoder.smk"
include: "workflow/rules/attribution.smk"
include: "workflow/rules/seeds.smk"
include: "workflow/rules/successors.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/gradients.smk"
include: "workflow/rules/tunings.smk"
include: "workflow/rules/taskspace.smk"
include: "workflow/rules/bridge.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/order.smk"


localrules:
    all,
    copy_tokenizer,
    fetch,
    list_comparisons,
    plan,


rule all:
    default_target: True
    input:
        [path for suite in EXPERIMENT.suites for path in results_of_suite(suite)],
        [stores_of_report(suite) for suite in EXPERIMENT.suites if EXPERIMENT.suites[suite].reported],
