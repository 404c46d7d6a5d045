"""Similarity probing: what tuning a copy of a checkpoint on one task does to all tasks."""


rule tune_task:
    input:
        checkpoint=lambda wildcards: checkpoint_path(wildcards.suite, wildcards.revision),
        checked=checks_of,
        corpus=LAYOUT.corpus.replace("{split}", "validation"),
        targets=lambda wildcards: [
            LAYOUT.task.format(suite=wildcards.suite, task=task) for task in suite_of(wildcards).space_tasks
        ],
        task=LAYOUT.task,
    output:
        tuning=directory(LAYOUT.tuning),
    log:
        LAYOUT.log("tune_task", "{revision}-seed{tuning_seed}-{task}"),
    benchmark:
        LAYOUT.benchmark("tune_task", "{revision}-seed{tuning_seed}-{task}")
    wildcard_constraints:
        suite=one_of(suites_with("taskspace")),
        task=one_of(names_in("space_tasks")),
    priority: in_order_of_tasks(stage=1)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=120,
        gpus=gpus(),
        # No parameters, since they do not change the result.
        device_map=device_map,
        share=EXPERIMENT.behaviour.tasks_per_job,
        pack=EXPERIMENT.behaviour.tasks_per_job,
        pack_with=directory_of(LAYOUT.tuning),
        state=spool_of(LAYOUT.tuning),
    params:
        settings=to_flags(EXPERIMENT.taskspace.tuning),
        other_tasks=companions(LAYOUT.tuning, LAYOUT.task),
        other_tunings=companions(LAYOUT.tuning, LAYOUT.tuning),
        loading=loading,
        script=SCRIPTS / "tune_task.py",
    message:
        "Tune copies of {wildcards.suite}'s {wildcards.revision} on {wildcards.task}, seed {wildcards.tuning_seed}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revision {wildcards.revision:q}"
        " --checkpoint {input.checkpoint:q} --corpus {input.corpus:q} --targets {input.targets:q}"
        " --tuning-seed {wildcards.tuning_seed} --tasks {input.task:q} {params.other_tasks:q}"
        " --outputs {output.tuning:q} {params.other_tunings:q} --share {resources.share} --log {log:q}"
        " {params.settings:q} --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"
