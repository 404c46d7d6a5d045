"""Whether the features that tasks share carry the transfer between them."""


rule bridge_tasks:
    input:
        checkpoints=checkpoint_paths,
        crosscoder=LAYOUT.crosscoder,
        relie=LAYOUT.relie,
        transfer=LAYOUT.transfer,
        tasks=lambda wildcards: [
            LAYOUT.task.format(suite=wildcards.suite, task=task) for task in suite_of(wildcards).space_tasks
        ],
    output:
        bridge=directory(LAYOUT.bridge),
    log:
        LAYOUT.log("bridge_tasks", RUN),
    benchmark:
        LAYOUT.benchmark("bridge_tasks", RUN)
    wildcard_constraints:
        suite=one_of(suites_with("taskspace")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=240,
        gpus=gpus(),
        device_map=device_map,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.taskspace.bridging),
        loading=loading,
        script=SCRIPTS / "bridge_tasks.py",
    message:
        "Hold transfer between tasks against the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --relie {input.relie:q} --transfer {input.transfer:q} --tasks {input.tasks:q} --output {output.bridge:q}"
        " {params.settings:q} --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"
