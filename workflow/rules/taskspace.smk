"""How tasks are related to one another, by what tuning on each does to all and by their gradients."""

WITH_SPACE = suites_with("taskspace")
NOT_OF_TRANSFER = ("gradient_groups", "sketch", "top_features", "permutations", "bootstrap_samples", "seed")
NOT_OF_SPACE = ("top_features", "bootstrap_samples")


rule collect_transfer:
    input:
        tunings=tunings_of_suite,
        tasks=lambda wildcards: expand(LAYOUT.task, suite=wildcards.suite, task=suite_of(wildcards).space_tasks),
    output:
        transfer=directory(LAYOUT.transfer),
    log:
        LAYOUT.log("collect_transfer"),
    benchmark:
        LAYOUT.benchmark("collect_transfer")
    wildcard_constraints:
        suite=one_of(WITH_SPACE),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        revisions=lambda wildcards: suite_of(wildcards).taskspace.checkpoints,
        tokens_seen=lambda wildcards: [
            suite_of(wildcards).tokens_seen[name] for name in suite_of(wildcards).taskspace.checkpoints
        ],
        # Not the paths themselves: those of thousands of tunings are too long for one command.
        tunings=lambda wildcards: LAYOUT.tuning.replace("{suite}", wildcards.suite),
        hypothesis=lambda wildcards: json.dumps(suite_of(wildcards).hypothesis),
        settings=taskspace_without(NOT_OF_TRANSFER),
        script=SCRIPTS / "collect_transfer.py",
    message:
        "Collect the transfer between the tasks of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --tokens-seen {params.tokens_seen:q} --tunings {params.tunings:q} --tasks {input.tasks:q}"
        " --hypothesis {params.hypothesis:q} --output {output.transfer:q} {params.settings:q} 2> {log:q}"


rule map_tasks:
    input:
        transfer=LAYOUT.transfer,
        gradients=LAYOUT.gradients,
    output:
        space=directory(LAYOUT.space),
    log:
        LAYOUT.log("map_tasks"),
    benchmark:
        LAYOUT.benchmark("map_tasks")
    wildcard_constraints:
        suite=one_of(WITH_SPACE),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        settings=taskspace_without(NOT_OF_SPACE),
        script=SCRIPTS / "map_tasks.py",
    message:
        "Map the tasks of {wildcards.suite}"
    shell:
        "python {params.script:q} --transfer {input.transfer:q} --gradients {input.gradients:q}"
        " --output {output.space:q} {params.settings:q} 2> {log:q}"


rule taskspace:
    input:
        expand(LAYOUT.space, suite=WITH_SPACE),
