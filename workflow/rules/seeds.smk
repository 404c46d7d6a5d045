"""How far effects and classes depend on the seed."""


rule match_seeds:
    input:
        crosscoders=lambda wildcards: [LAYOUT.crosscoder.format(seed=seed, **wildcards) for seed in EXPERIMENT.seeds],
        relies=lambda wildcards: [LAYOUT.relie.format(seed=seed, **wildcards) for seed in EXPERIMENT.seeds],
    output:
        seeds=directory(LAYOUT.seeds),
    log:
        LAYOUT.log("match_seeds", "{comparison}-{variant}"),
    benchmark:
        LAYOUT.benchmark("match_seeds", "{comparison}-{variant}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        script=SCRIPTS / "match_seeds.py",
    message:
        "Match the {wildcards.variant} features of {wildcards.comparison} between seeds"
    shell:
        "python {params.script:q} --crosscoders {input.crosscoders:q} --relies {input.relies:q}"
        " --output {output.seeds:q} 2> {log:q}"
