"""How well each checkpoint does, and where representations change."""


rule score_task:
    input:
        checkpoints=checkpoint_paths,
        checked=checks_of,
        task=LAYOUT.task,
    output:
        scores=directory(LAYOUT.task_behaviour),
    log:
        LAYOUT.log("score_task", "{task}"),
    benchmark:
        LAYOUT.benchmark("score_task", "{task}")
    priority: in_order_of_tasks(stage=1)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=120,
        gpus=gpus(),
        device_map=device_map,
        # No parameter, since who makes a result does not change it.
        share=EXPERIMENT.behaviour.tasks_per_job,
        pack=EXPERIMENT.behaviour.tasks_per_job,
        pack_with=directory_of(LAYOUT.task_behaviour),
        state=spool_of(LAYOUT.task_behaviour),
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        other_tasks=companions(LAYOUT.task_behaviour, LAYOUT.task),
        other_scores=companions(LAYOUT.task_behaviour, LAYOUT.task_behaviour),
        loading=loading,
        script=SCRIPTS / "score_task.py",
    message:
        "Score {wildcards.suite} on {wildcards.task}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q}"
        " --tasks {input.task:q} {params.other_tasks:q} --outputs {output.scores:q} {params.other_scores:q}"
        " --share {resources.share} --log {log:q} --loading {params.loading:q}"
        " --device-map {resources.device_map} 2> {log:q}"


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
        checkpoints=checkpoint_paths,
        checked=checks_of,
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
        gpus=gpus(),
        device_map=device_map,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        sites=lambda wildcards: suite_of(wildcards).sites,
        settings=to_flags(EXPERIMENT.similarity),
        loading=loading,
        script=SCRIPTS / "compare_checkpoints.py",
    message:
        "Compare the activations of {wildcards.suite}'s checkpoints"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --corpus {input.corpus:q}"
        " --sites {params.sites:q} --output {output.similarity:q} {params.settings:q} --loading {params.loading:q}"
        " --device-map {resources.device_map} 2> {log:q}"


rule list_comparisons:
    output:
        comparisons=LAYOUT.comparisons,
    log:
        LAYOUT.log("list_comparisons"),
    benchmark:
        LAYOUT.benchmark("list_comparisons")
    wildcard_constraints:
        suite=one_of(name for name, suite in EXPERIMENT.suites.items() if suite.auto is None),
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


checkpoint choose_comparisons:
    input:
        unpack(curves),
    output:
        comparisons=LAYOUT.comparisons,
        choice=directory(LAYOUT.choice),
    log:
        LAYOUT.log("choose_comparisons"),
    benchmark:
        LAYOUT.benchmark("choose_comparisons")
    wildcard_constraints:
        suite=one_of(suites_with("auto")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        comparisons=lambda wildcards: json.dumps(suite_of(wildcards).model_dump(mode="json")["comparisons"]),
        site=lambda wildcards: suite_of(wildcards).site,
        curves=curve_flags,
        settings=lambda wildcards: to_flags(suite_of(wildcards).auto),
        script=SCRIPTS / "choose_comparisons.py",
    message:
        "Choose the comparisons of {wildcards.suite}"
    shell:
        "python {params.script:q} --comparisons {params.comparisons:q} --suite-site {params.site:q}"
        " {params.curves:q} --output {output.comparisons:q} --choice {output.choice:q} {params.settings:q} 2> {log:q}"
