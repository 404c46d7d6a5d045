"""The checkpoints of each suite, its tokenizer and its text."""


rule train_tokenizer:
    output:
        tokenizer=directory(LAYOUT.tokenizer),
    log:
        LAYOUT.log("train_tokenizer"),
    benchmark:
        LAYOUT.benchmark("train_tokenizer")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        pack=10,
    params:
        language=lambda wildcards: suite_of(wildcards).source.language,
        seed=lambda wildcards: suite_of(wildcards).source.text_seed,
        vocabulary_size=lambda wildcards: suite_of(wildcards).source.vocabulary_size,
        script=SCRIPTS / "train_tokenizer.py",
    message:
        "Train the tokenizer of {wildcards.suite}"
    shell:
        "python {params.script:q} --output {output.tokenizer:q} --language {params.language:q}"
        " --seed {params.seed:q} --vocabulary-size {params.vocabulary_size:q} 2> {log:q}"


for nursery in suites_from("nursery"):

    rule:
        name:
            f"pretrain_{nursery}"
        input:
            tokenizer=LAYOUT.tokenizer.format(suite=nursery),
        output:
            checkpoints=directory(
                expand(
                    LAYOUT.checkpoint,
                    suite=nursery,
                    revision=EXPERIMENT.suites[nursery].tokens_seen,
                )
            ),
        log:
            LAYOUT.log("pretrain_nursery").format(suite=nursery),
        benchmark:
            LAYOUT.benchmark("pretrain_nursery").format(suite=nursery)
        conda:
            ENVIRONMENT
        threads: 8
        resources:
            mem_mb=memory(3000),
            runtime=60,
        params:
            source=pretraining_flags(nursery),
            script=SCRIPTS / "pretrain_nursery.py",
            parent=lambda wildcards, output: str(Path(output.checkpoints[0]).parent),
        message:
            "Pretrain a miniature language model (progress in {log})"
        shell:
            "python {params.script:q} --tokenizer {input.tokenizer:q} --output {params.parent:q} {params.source:q}"
            " 2> {log:q}"


rule download_checkpoint:
    output:
        checkpoint=directory(LAYOUT.checkpoint),
    log:
        LAYOUT.log("download_checkpoint", "{revision}"),
    benchmark:
        LAYOUT.benchmark("download_checkpoint", "{revision}")
    wildcard_constraints:
        suite=one_of(suites_from("hub")),
        revision=one_of(names_in("tokens_seen")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        repository=lambda wildcards: suite_of(wildcards).source.repository,
        pickled=lambda wildcards: ["--pickled-weights"] if suite_of(wildcards).source.pickled_weights else [],
        script=SCRIPTS / "download_checkpoint.py",
    message:
        "Download {params.repository} at {wildcards.revision}"
    shell:
        "python {params.script:q} --repository {params.repository:q} --revision {wildcards.revision:q}"
        " --output {output.checkpoint:q} {params.pickled:q} 2> {log:q}"


rule check_checkpoints:
    input:
        checkpoints=checkpoints_that_read,
        tokenizer=tokenizer_path,
    output:
        checked=LAYOUT.checked,
    log:
        LAYOUT.log("check_checkpoints"),
    benchmark:
        LAYOUT.benchmark("check_checkpoints")
    wildcard_constraints:
        suite=one_of(name for name in EXPERIMENT.suites if has_to_be_checked(EXPERIMENT, name)),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        revisions=lambda wildcards: suite_of(wildcards).readers,
        script=SCRIPTS / "check_checkpoints.py",
    message:
        "Check that the checkpoints of {wildcards.suite} share their tokenizer"
    shell:
        "python {params.script:q} --revisions {params.revisions:q} --checkpoints {input.checkpoints:q}"
        " --tokenizer {input.tokenizer:q} --output {output.checked:q} 2> {log:q}"


rule build_corpus:
    input:
        tokenizer=tokenizer_path,
        checked=checked_checkpoints,
        text=corpus_file,
    output:
        corpus=directory(LAYOUT.corpus),
    log:
        LAYOUT.log("build_corpus", "{split}"),
    benchmark:
        LAYOUT.benchmark("build_corpus", "{split}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        language=language,
        corpus=lambda wildcards: as_json(suite_of(wildcards).corpus),
        script=SCRIPTS / "build_corpus.py",
    message:
        "Build the {wildcards.split} corpus of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} {params.language:q} --corpus {params.corpus:q}"
        " --split {wildcards.split:q} --tokenizer {input.tokenizer:q} --output {output.corpus:q} 2> {log:q}"
