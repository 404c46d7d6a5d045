"""How well each checkpoint does, and where representations change.

Tasks of a suite may share a job, which loads each model once: a rule for each group of them.
"""

for group_suite, group, tasks in task_groups(EXPERIMENT.behaviour.tasks_per_job):

    rule:
        name:
            f"score_tasks_{group_suite}_{group}"
        input:
            checkpoints=checkpoints,
            tasks=of_tasks(LAYOUT.task, tasks),
        output:
            scores=directory(of_tasks(LAYOUT.task_behaviour, tasks)),
        log:
            LAYOUT.log("score_tasks", str(group)),
        benchmark:
            LAYOUT.benchmark("score_tasks", str(group))
        wildcard_constraints:
            suite=one_of([group_suite]),
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=memory(8000),
            runtime=120,
            gpus=1,
        params:
            revisions=revisions,
            tokens_seen=tokens_seen,
            script=SCRIPTS / "score_tasks.py",
        message:
            "Score {wildcards.suite} on tasks: {output.scores}"
        shell:
            "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
            " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --tasks {input.tasks:q}"
            " --outputs {output.scores:q} 2> {log:q}"


rule collect_behaviour:
    input:
        scores=of_every_task(LAYOUT.task_behaviour),
    output:
        behaviour=directory(LAYOUT.behaviour),
    log:
        LAYOUT.log("collect_behaviour"),
    benchmark:
        LAYOUT.benchmark("collect_behaviour")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        pack=10,
    params:
        script=SCRIPTS / "collect_behaviour.py",
    message:
        "Collect the scores of {wildcards.suite}"
    shell:
        "python {params.script:q} --scores {input.scores:q} --output {output.behaviour:q} 2> {log:q}"


rule compare_checkpoints:
    input:
        checkpoints=checkpoints,
        corpus=LAYOUT.corpus.replace("{split}", "validation"),
    output:
        similarity=directory(LAYOUT.similarity),
    log:
        LAYOUT.log("compare_checkpoints"),
    benchmark:
        LAYOUT.benchmark("compare_checkpoints")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=120,
        gpus=1,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        sites=lambda wildcards: sorted({suite_of(wildcards).site_of(name) for name in suite_of(wildcards).comparisons}),
        settings=to_flags(EXPERIMENT.similarity),
        script=SCRIPTS / "compare_checkpoints.py",
    message:
        "Compare the activations of {wildcards.suite}'s checkpoints"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --corpus {input.corpus:q}"
        " --sites {params.sites:q} --output {output.similarity:q} {params.settings:q} 2> {log:q}"


rule list_comparisons:
    output:
        comparisons=LAYOUT.comparisons,
    log:
        LAYOUT.log("list_comparisons"),
    benchmark:
        LAYOUT.benchmark("list_comparisons")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
    params:
        comparisons=lambda wildcards: json.dumps(suite_of(wildcards).model_dump(mode="json")["comparisons"]),
        site=lambda wildcards: suite_of(wildcards).site,
        script=SCRIPTS / "list_comparisons.py",
    message:
        "List the comparisons of {wildcards.suite}"
    shell:
        "python {params.script:q} --comparisons {params.comparisons:q} --site {params.site:q}"
        " --output {output.comparisons:q} 2> {log:q}"
