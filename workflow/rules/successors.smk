"""What becomes of features in the comparison that begins where theirs ends."""


rule match_successors:
    input:
        crosscoder=LAYOUT.crosscoder,
        successors=lambda wildcards: [
            LAYOUT.crosscoder.format(**{**wildcards, "comparison": name})
            for name in settled(wildcards.suite).successors_of(wildcards.comparison, wildcards.variant)
        ],
    output:
        successors=directory(LAYOUT.successors),
    log:
        LAYOUT.log("match_successors", RUN),
    benchmark:
        LAYOUT.benchmark("match_successors", RUN)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        script=SCRIPTS / "match_successors.py",
    message:
        "Match the {wildcards.variant} features of {wildcards.comparison} (seed {wildcards.seed}) with those that follow"
    shell:
        "python {params.script:q} --crosscoder {input.crosscoder:q} --successors {input.successors:q}"
        " --output {output.successors:q} 2> {log:q}"
