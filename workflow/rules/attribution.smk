"""The causal effect of every feature on every task at every checkpoint."""


rule attribute_task:
    input:
        checkpoints=checkpoints,
        crosscoder=LAYOUT.crosscoder,
        task=LAYOUT.task,
    output:
        attribution=directory(LAYOUT.attribution),
    log:
        LAYOUT.log("attribute_task", f"{RUN}-{{task}}"),
    benchmark:
        LAYOUT.benchmark("attribute_task", f"{RUN}-{{task}}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=240,
        gpus=1,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.attribution),
        script=SCRIPTS / "attribute_task.py",
    message:
        "Attribute {wildcards.task} to the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --task {input.task:q} --output {output.attribution:q} {params.settings:q} 2> {log:q}"


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
    params:
        script=SCRIPTS / "collect_attributions.py",
    message:
        "Collect the effects of the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --attributions {input.attributions:q} --output {output.relie:q} 2> {log:q}"
