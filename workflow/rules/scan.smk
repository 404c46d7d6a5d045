"""A cheap look at every checkpoint of a suite, before any is studied."""


rule scan_checkpoint:
    input:
        checkpoint=lambda wildcards: checkpoint_path(wildcards.suite, wildcards.revision),
        weights=local_weights,
        tasks=of_every_task(LAYOUT.task),
        corpus=LAYOUT.corpus.replace("{split}", "validation"),
        tokenizer=tokenizer_path,
    output:
        scan=directory(LAYOUT.checkpoint_scan),
    log:
        LAYOUT.log("scan_checkpoint", "{revision}"),
    benchmark:
        LAYOUT.benchmark("scan_checkpoint", "{revision}")
    wildcard_constraints:
        suite=one_of(suites_with("scan")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
        gpus=gpus(),
        device_map=device_map,
        pack=8,
    params:
        tasks=lambda wildcards: list(suite_of(wildcards).tasks),
        sites=lambda wildcards: suite_of(wildcards).sites,
        # What is studied afterwards changes no scan.
        settings=lambda wildcards: to_flags(suite_of(wildcards).scan.model_copy(update={"study": []})),
        loading=loading,
        script=SCRIPTS / "scan_checkpoint.py",
    message:
        "Scan {wildcards.suite} {wildcards.revision}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revision {wildcards.revision:q}"
        " --checkpoint {input.checkpoint:q} --task-stores {input.tasks:q} --corpus {input.corpus:q}"
        " --tokenizer {input.tokenizer:q} --sites {params.sites:q} --output {output.scan:q} {params.settings:q}"
        " --loading {params.loading:q} --device-map {resources.device_map} 2> {log:q}"


rule collect_scan:
    input:
        scans=of_every_checkpoint(LAYOUT.checkpoint_scan),
        tasks=of_every_task(LAYOUT.task),
    output:
        scan=directory(LAYOUT.scan),
    log:
        LAYOUT.log("collect_scan"),
    benchmark:
        LAYOUT.benchmark("collect_scan")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        tokens_seen=lambda wildcards: list(suite_of(wildcards).tokens_seen.values()),
        script=SCRIPTS / "collect_scan.py",
    message:
        "Collect the scans of {wildcards.suite}"
    shell:
        "python {params.script:q} --scans {input.scans:q} --tokens-seen {params.tokens_seen:q}"
        " --task-stores {input.tasks:q} --output {output.scan:q} 2> {log:q}"


rule show_scan:
    input:
        scan=LAYOUT.scan,
    output:
        report=LAYOUT.scan_report,
    log:
        LAYOUT.log("show_scan"),
    benchmark:
        LAYOUT.benchmark("show_scan")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        contrasts=lambda wildcards: json.dumps(suite_of(wildcards).contrasts),
        comparisons=lambda wildcards: json.dumps(suite_of(wildcards).model_dump(mode="json")["comparisons"]),
        script=SCRIPTS / "show_scan.py",
    message:
        "Show the scan of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --scan {input.scan:q} --contrasts {params.contrasts:q}"
        " --comparisons {params.comparisons:q} --output {output.report:q} 2> {log:q}"


rule scan:
    input:
        expand(LAYOUT.scan_report, suite=suites_with("scan")),
