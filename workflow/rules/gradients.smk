"""How similar the gradients are by which a checkpoint would be tuned on different tasks."""


rule compare_gradients:
    input:
        checkpoint=lambda wildcards: checkpoint_path(wildcards.suite, wildcards.revision),
        checked=checks_of,
        tasks=lambda wildcards: expand(LAYOUT.task, task=suite_of(wildcards).space_tasks, suite=wildcards.suite),
    output:
        gradients=directory(LAYOUT.checkpoint_gradients),
    log:
        LAYOUT.log("compare_gradients", "{revision}"),
    benchmark:
        LAYOUT.benchmark("compare_gradients", "{revision}")
    wildcard_constraints:
        suite=one_of(suites_with("taskspace")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=60,
        gpus=gpus(),
        device_map=device_map,
        pack=8,
    params:
        settings=to_flags(EXPERIMENT.taskspace.gradients),
        loading=loading,
        script=SCRIPTS / "compare_gradients.py",
    message:
        "Compare the gradients of {wildcards.suite} {wildcards.revision} on every two tasks"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revision {wildcards.revision:q}"
        " --checkpoint {input.checkpoint:q} --tasks {input.tasks:q} --output {output.gradients:q} {params.settings:q}"
        " --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"


rule collect_gradients:
    input:
        gradients=lambda wildcards: expand(
            LAYOUT.checkpoint_gradients, revision=suite_of(wildcards).taskspace.checkpoints, suite=wildcards.suite
        ),
    output:
        gradients=directory(LAYOUT.gradients),
    log:
        LAYOUT.log("collect_gradients"),
    benchmark:
        LAYOUT.benchmark("collect_gradients")
    wildcard_constraints:
        suite=one_of(suites_with("taskspace")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        pack=10,
    params:
        tokens_seen=lambda wildcards: [
            suite_of(wildcards).tokens_seen[name] for name in suite_of(wildcards).taskspace.checkpoints
        ],
        tasks=lambda wildcards: list(suite_of(wildcards).hypothesis),
        groups=lambda wildcards: list(suite_of(wildcards).hypothesis.values()),
        script=SCRIPTS / "collect_gradients.py",
    message:
        "Collect the comparisons of gradients of {wildcards.suite}"
    shell:
        "python {params.script:q} --gradients {input.gradients:q} --tokens-seen {params.tokens_seen:q}"
        " --tasks {params.tasks:q} --groups {params.groups:q} --output {output.gradients:q} 2> {log:q}"
