"""Minimal pairs, tokenised."""


rule build_task:
    input:
        tokenizer=tokenizer_path,
        pairs=task_file,
    output:
        task=directory(LAYOUT.task),
    log:
        LAYOUT.log("build_task", "{task}"),
    benchmark:
        LAYOUT.benchmark("build_task", "{task}")
    priority: BEFORE_TASKS + 1  # what is wrong with a file is said before anything expensive begins
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        pack=40,
    params:
        settings=lambda wildcards: as_json(suite_of(wildcards).tasks[wildcards.task]),
        lock=LAYOUT.lock,
        script=SCRIPTS / "build_task.py",
    message:
        "Build task {wildcards.task} of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --task {wildcards.task:q}"
        " --settings {params.settings:q} --tokenizer {input.tokenizer:q} --lock {params.lock:q}"
        " --output {output.task:q} 2> {log:q}"
