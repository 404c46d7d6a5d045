"""What the features that matter stand for."""


rule find_examples:
    input:
        crosscoder=LAYOUT.crosscoder,
        relie=LAYOUT.relie,
        activations=activations("validation"),
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
        mem_mb=memory(8000),
        runtime=60,
        pack=10,
    params:
        settings=to_flags(EXPERIMENT.features),
        script=SCRIPTS / "find_examples.py",
    message:
        "Find top-activating examples of the {wildcards.variant} features of {wildcards.comparison}"
    shell:
        "python {params.script:q} --crosscoder {input.crosscoder:q} --relie {input.relie:q}"
        " --activations {input.activations:q} --tokenizer {input.tokenizer:q} --output {output.features:q}"
        " {params.settings:q} 2> {log:q}"
