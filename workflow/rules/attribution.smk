"""The causal effect of every feature on every task at every checkpoint, and the exact effects that check it."""


rule attribute_task:
    input:
        checkpoints=checkpoint_paths,
        crosscoder=LAYOUT.crosscoder,
        task=LAYOUT.task,
        evaluation=corpus_means,
    output:
        attribution=directory(LAYOUT.attribution),
    log:
        LAYOUT.log("attribute_task", f"{RUN}-{{task}}"),
    benchmark:
        LAYOUT.benchmark("attribute_task", f"{RUN}-{{task}}")
    priority: in_order_of_tasks(stage=1)
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.attribution_jobs.processes
    resources:
        mem_mb=memory(16000),
        runtime=240,
        gpus=gpus(EXPERIMENT.attribution_jobs.processes),
        # No parameters, since they do not change the result, and another task is to rerun none of these.
        processes=EXPERIMENT.attribution_jobs.processes,
        device_map=device_map,
        suite_pairs=lambda wildcards: suite_pairs(wildcards.suite),
        share=EXPERIMENT.attribution_jobs.tasks_per_job,
        pack=EXPERIMENT.attribution_jobs.tasks_per_job,
        pack_with=directory_of(LAYOUT.attribution),
        state=spool_of(LAYOUT.attribution),
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.attribution),
        evaluation=evaluation_flag,
        other_tasks=companions(LAYOUT.attribution, LAYOUT.task),
        other_attributions=companions(LAYOUT.attribution, LAYOUT.attribution),
        loading=loading,
        script=SCRIPTS / "attribute_task.py",
    message:
        "Attribute {wildcards.task} to the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --tasks {input.task:q} {params.other_tasks:q} --outputs {output.attribution:q} {params.other_attributions:q}"
        " --share {resources.share} --log {log:q} --processes {resources.processes}"
        " --suite-pairs {resources.suite_pairs} {params.settings:q} {params.evaluation:q} --loading {params.loading:q}"
        " --device-map {resources.device_map} 2> {log:q}"


rule ablate_task:
    input:
        checkpoints=checkpoint_paths,
        crosscoder=LAYOUT.crosscoder,
        task=LAYOUT.task,
        evaluation=corpus_means,
        attribution=LAYOUT.attribution,
        own_codes=LAYOUT.own_codes,
    output:
        ablation=directory(LAYOUT.ablation),
    log:
        LAYOUT.log("ablate_task", f"{RUN}-{{task}}"),
    benchmark:
        LAYOUT.benchmark("ablate_task", f"{RUN}-{{task}}")
    priority: in_order_of_tasks(stage=2)
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.attribution_jobs.processes
    resources:
        mem_mb=memory(16000),
        runtime=240,
        gpus=gpus(EXPERIMENT.attribution_jobs.processes),
        processes=EXPERIMENT.attribution_jobs.processes,
        device_map=device_map,
        share=EXPERIMENT.attribution_jobs.tasks_per_job,
        pack=EXPERIMENT.attribution_jobs.tasks_per_job,
        pack_with=directory_of(LAYOUT.ablation),
        state=spool_of(LAYOUT.ablation),
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.attribution),
        evaluation=evaluation_flag,
        ablation=to_flags(EXPERIMENT.ablation),
        other_tasks=companions(LAYOUT.ablation, LAYOUT.task),
        other_attributions=companions(LAYOUT.ablation, LAYOUT.attribution),
        other_ablations=companions(LAYOUT.ablation, LAYOUT.ablation),
        loading=loading,
        script=SCRIPTS / "ablate_task.py",
    message:
        "Ablate the {wildcards.variant} features of {wildcards.comparison} that matter most to {wildcards.task}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --tasks {input.task:q} {params.other_tasks:q}"
        " --attributions {input.attribution:q} {params.other_attributions:q}"
        " --outputs {output.ablation:q} {params.other_ablations:q}"
        " --share {resources.share} --log {log:q} --processes {resources.processes}"
        " --own-codes {input.own_codes:q} {params.settings:q} {params.evaluation:q} {params.ablation:q}"
        " --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"


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
