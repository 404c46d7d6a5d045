"""The causal effect of every feature on every task at every checkpoint, and the exact effects that check it.

Tasks of a crosscoder may share a job, which loads the models once: a rule for each group of tasks of a suite.
"""

for group_suite, group, tasks in task_groups(EXPERIMENT.attribution_jobs.tasks_per_job):

    rule:
        name:
            f"attribute_tasks_{group_suite}_{group}"
        input:
            checkpoints=checkpoints,
            crosscoder=LAYOUT.crosscoder,
            tasks=of_tasks(LAYOUT.task, tasks),
            evaluation=corpus_means,
        output:
            attributions=directory(of_tasks(LAYOUT.attribution, tasks)),
        log:
            LAYOUT.log("attribute_tasks", f"{RUN}-{group}"),
        benchmark:
            LAYOUT.benchmark("attribute_tasks", f"{RUN}-{group}")
        wildcard_constraints:
            suite=one_of([group_suite]),
        conda:
            ENVIRONMENT
        threads: EXPERIMENT.attribution_jobs.processes
        resources:
            mem_mb=memory(16000),
            runtime=240,
            gpus=EXPERIMENT.attribution_jobs.processes,
            processes=EXPERIMENT.attribution_jobs.processes,  # no parameter, since it does not change the result
            suite_pairs=suite_pairs(group_suite),  # nor one: another task is to rerun none of these
        params:
            revisions=revisions,
            tokens_seen=tokens_seen,
            settings=to_flags(EXPERIMENT.attribution),
            evaluation=evaluation_flag,
            script=SCRIPTS / "attribute_tasks.py",
        message:
            "Attribute tasks to the {wildcards.variant} features of {wildcards.comparison}: {output.attributions}"
        shell:
            "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
            " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q}"
            " --crosscoder {input.crosscoder:q} --tasks {input.tasks:q} --outputs {output.attributions:q}"
            " --processes {resources.processes} --suite-pairs {resources.suite_pairs} {params.settings:q} {params.evaluation:q} 2> {log:q}"

    rule:
        name:
            f"ablate_tasks_{group_suite}_{group}"
        input:
            checkpoints=checkpoints,
            crosscoder=LAYOUT.crosscoder,
            tasks=of_tasks(LAYOUT.task, tasks),
            evaluation=corpus_means,
            attributions=of_tasks(LAYOUT.attribution, tasks),
            own_codes=LAYOUT.own_codes,
        output:
            ablations=directory(of_tasks(LAYOUT.ablation, tasks)),
        log:
            LAYOUT.log("ablate_tasks", f"{RUN}-{group}"),
        benchmark:
            LAYOUT.benchmark("ablate_tasks", f"{RUN}-{group}")
        wildcard_constraints:
            suite=one_of([group_suite]),
        conda:
            ENVIRONMENT
        threads: EXPERIMENT.attribution_jobs.processes
        resources:
            mem_mb=memory(16000),
            runtime=240,
            gpus=EXPERIMENT.attribution_jobs.processes,
            processes=EXPERIMENT.attribution_jobs.processes,
        params:
            revisions=revisions,
            tokens_seen=tokens_seen,
            settings=to_flags(EXPERIMENT.attribution),
            evaluation=evaluation_flag,
            ablation=to_flags(EXPERIMENT.ablation),
            script=SCRIPTS / "ablate_tasks.py",
        message:
            "Ablate the {wildcards.variant} features of {wildcards.comparison} that matter most: {output.ablations}"
        shell:
            "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
            " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q}"
            " --crosscoder {input.crosscoder:q} --tasks {input.tasks:q} --attributions {input.attributions:q}"
            " --own-codes {input.own_codes:q}"
            " --outputs {output.ablations:q} --processes {resources.processes}"
            " {params.settings:q} {params.evaluation:q} {params.ablation:q} 2> {log:q}"


rule collect_attributions:
    input:
        attributions=of_every_task(LAYOUT.attribution),
    output:
        relie=directory(LAYOUT.relie),
    log:
        LAYOUT.log("collect_attributions", RUN),
    benchmark:
        LAYOUT.benchmark("collect_attributions", RUN)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
        pack=10,
    params:
        trajectories=to_flags(EXPERIMENT.trajectories),
        script=SCRIPTS / "collect_attributions.py",
    message:
        "Collect the effects of the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --attributions {input.attributions:q} --output {output.relie:q}"
        " {params.trajectories:q} 2> {log:q}"
