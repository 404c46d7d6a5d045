"""The report of a suite."""


rule write_report:
    input:
        **SHOWN,
    output:
        report=LAYOUT.report,
        figures=report(
            directory(LAYOUT.report_figures),
            patterns=["{page,[^/]+}/{figure}.svg"],
            category="{suite}",
            subcategory="{page}",
            labels={"figure": "{figure}"},
        ),
    log:
        LAYOUT.log("write_report"),
    benchmark:
        LAYOUT.benchmark("write_report")
    conda:
        ENVIRONMENT
    threads: REPORT_PROCESSES
    resources:
        # The effects of all crosscoders are in memory at once.
        mem_mb=lambda wildcards, attempt: attempt * report_mb(*report_sizes(wildcards)),
        runtime=lambda wildcards: report_minutes(*report_sizes(wildcards)),
    params:
        order=lambda wildcards: of_every_run(wildcards.suite, RUN, settled(wildcards.suite).comparisons),  # of what it shows
        contrasts=lambda wildcards: json.dumps(suite_of(wildcards).contrasts),
        # With the input, since neither another place nor another measurement reruns the report.
        configs=lambda wildcards, input: [str(path) for path in workflow.configfiles],
        benchmarks=lambda wildcards, input: LAYOUT.benchmarks.format(**wildcards),
        script=SCRIPTS / "write_report.py",
    message:
        "Write the report of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --behaviour {input.behaviour:q}"
        " --similarity {input.similarity:q} --comparisons {input.comparisons:q} --trainings {input.trainings:q}"
        " --evaluations {input.evaluations:q} --relies {input.relies:q} --features {input.features:q}"
        " --ablations {input.ablations:q} --seed-matches {input.seed_matches:q}"
        " --consolidations {input.consolidations:q} --successors {input.successors:q} --controls {input.controls:q}"
        " --control-evaluations {input.control_evaluations:q} --baselines {input.baselines:q}"
        " --choice {input.choice:q} --scan {input.scan:q} --transfer {input.transfer:q} --gradients {input.gradients:q}"
        " --space {input.space:q} --bridges {input.bridges:q} --contrasts {params.contrasts:q} --annotations {input.annotations:q}"
        " --configs {params.configs:q} --benchmarks {params.benchmarks:q} --processes {threads} --output {output.report:q} 2> {log:q}"
