"""What a joint dictionary is worth, beside dictionaries of single checkpoints that are matched afterwards."""


rule compare_baseline:
    input:
        crosscoder=LAYOUT.crosscoder,
        relie=LAYOUT.relie,
        ablations=of_every_task(LAYOUT.ablation),
        singles=of_baseline(LAYOUT.crosscoder),
        single_relies=of_baseline(LAYOUT.relie),
    output:
        baseline=directory(LAYOUT.baseline),
    log:
        LAYOUT.log("compare_baseline", RUN),
    benchmark:
        LAYOUT.benchmark("compare_baseline", RUN)
    wildcard_constraints:
        comparison=one_of({name for suite in EXPERIMENT.suites for name in with_baseline(suite)}),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        script=SCRIPTS / "compare_baseline.py",
    message:
        "Compare the {wildcards.variant} features of {wildcards.comparison} with dictionaries of single checkpoints"
    shell:
        "python {params.script:q} --crosscoder {input.crosscoder:q} --relie {input.relie:q}"
        " --ablations {input.ablations:q} --singles {input.singles:q} --single-relies {input.single_relies:q}"
        " --output {output.baseline:q} 2> {log:q}"
