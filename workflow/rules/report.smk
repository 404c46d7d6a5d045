"""The report of a suite."""


rule write_report:
    input:
        behaviour=LAYOUT.behaviour,
        similarity=LAYOUT.similarity,
        comparisons=LAYOUT.comparisons,
        choice=lambda wildcards: LAYOUT.choice.format(**wildcards) if suite_of(wildcards).auto else [],
        scan=lambda wildcards: LAYOUT.scan.format(**wildcards) if suite_of(wildcards).scan else [],
        trainings=of_every_run_of(LAYOUT.training),
        evaluations=of_every_run_of(LAYOUT.evaluation),
        relies=of_every_run_of(LAYOUT.relie),
        features=of_every_run_of(LAYOUT.features),
        ablations=ablations_of_suite,
        seed_matches=seeds_of_suite,
        consolidations=consolidations_of_suite,
        controls=of_every_control(LAYOUT.relie),
        control_evaluations=of_every_control(LAYOUT.evaluation),
        baselines=lambda wildcards: of_every_run(wildcards.suite, LAYOUT.baseline, with_baseline(wildcards.suite)),
        transfer=of_task_space(LAYOUT.transfer),
        gradients=of_task_space(LAYOUT.gradients),
        space=of_task_space(LAYOUT.space),
        bridges=lambda wildcards: of_every_run(wildcards.suite, LAYOUT.bridge, bridged(wildcards.suite)),
    output:
        report=LAYOUT.report,
    log:
        LAYOUT.log("write_report"),
    benchmark:
        LAYOUT.benchmark("write_report")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=20,
    params:
        order=lambda wildcards: of_every_run(wildcards.suite, RUN, settled(wildcards.suite).comparisons),  # of what it shows
        contrasts=lambda wildcards: json.dumps(suite_of(wildcards).contrasts),
        script=SCRIPTS / "write_report.py",
    message:
        "Write the report of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --behaviour {input.behaviour:q}"
        " --similarity {input.similarity:q} --comparisons {input.comparisons:q} --trainings {input.trainings:q}"
        " --evaluations {input.evaluations:q} --relies {input.relies:q} --features {input.features:q}"
        " --ablations {input.ablations:q} --seed-matches {input.seed_matches:q}"
        " --consolidations {input.consolidations:q} --controls {input.controls:q}"
        " --control-evaluations {input.control_evaluations:q} --baselines {input.baselines:q}"
        " --choice {input.choice:q} --scan {input.scan:q} --transfer {input.transfer:q} --gradients {input.gradients:q}"
        " --space {input.space:q} --bridges {input.bridges:q} --contrasts {params.contrasts:q} --output {output.report:q} 2> {log:q}"
