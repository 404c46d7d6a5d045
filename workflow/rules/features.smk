"""What the features that matter stand for, and whether languages share them."""


rule find_examples:
    input:
        checkpoints=checkpoint_paths,
        crosscoder=LAYOUT.crosscoder,
        relie=LAYOUT.relie,
        activations=activations("validation"),
        corpus=LAYOUT.corpus.replace("{split}", "validation"),
        tokenizer=tokenizer_path,
    output:
        features=directory(LAYOUT.features),
    log:
        LAYOUT.log("find_examples", RUN),
    benchmark:
        LAYOUT.benchmark("find_examples", RUN)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=60,
        gpus=gpus(),
        device_map=device_map,
        pack=10,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.features),
        loading=loading,
        script=SCRIPTS / "find_examples.py",
    message:
        "Find what the {wildcards.variant} features of {wildcards.comparison} stand for"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --relie {input.relie:q} --activations {input.activations:q} --corpus {input.corpus:q}"
        " --tokenizer {input.tokenizer:q} --output {output.features:q} {params.settings:q}"
        " --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"


rule measure_consolidation:
    input:
        relie=LAYOUT.relie,
    output:
        consolidation=directory(LAYOUT.consolidation),
    log:
        LAYOUT.log("measure_consolidation", RUN),
    benchmark:
        LAYOUT.benchmark("measure_consolidation", RUN)
    wildcard_constraints:
        suite=one_of(name for name, suite in EXPERIMENT.suites.items() if suite.families),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        settings=to_flags(EXPERIMENT.consolidation),
        script=SCRIPTS / "measure_consolidation.py",
    message:
        "Compare languages in the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --relie {input.relie:q} --output {output.consolidation:q} {params.settings:q}"
        " 2> {log:q}"
