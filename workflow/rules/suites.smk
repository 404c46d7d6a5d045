"""The checkpoints of each suite, its tokenizer and its text."""


rule train_tokenizer:
    output:
        tokenizer=directory(LAYOUT.tokenizer),
    log:
        LAYOUT.log("train_tokenizer"),
    benchmark:
        LAYOUT.benchmark("train_tokenizer")
    wildcard_constraints:
        suite=one_of(suites_from("nursery")),
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
        repository=lambda wildcards: suite_of(wildcards).source.located(wildcards.revision).repository,
        revision=lambda wildcards: suite_of(wildcards).source.located(wildcards.revision).revision,
        tokenizer=tokenizer_flag,
        pickled=pickled_flag,
        lock=LAYOUT.lock,
        script=SCRIPTS / "download_checkpoint.py",
    message:
        "Download {params.repository} at {params.revision}"
    shell:
        "python {params.script:q} --repository {params.repository:q} --revision {params.revision:q}"
        " --lock {params.lock:q} --output {output.checkpoint:q} {params.tokenizer:q} {params.pickled:q}"
        " 2> {log:q}"


rule copy_tokenizer:
    output:
        tokenizer=directory(LAYOUT.tokenizer),
    log:
        LAYOUT.log("copy_tokenizer"),
    benchmark:
        LAYOUT.benchmark("copy_tokenizer")
    wildcard_constraints:
        suite=one_of(suites_from("local")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
    params:
        source=tokenizer_source,
        # Its content, not its place: a run that goes on may delete its first checkpoint.
        digest=lambda wildcards: tokenizer_digest(Path(suite_of(wildcards).source.tokenizer)),
        script=SCRIPTS / "copy_tokenizer.py",
    message:
        "Copy the tokenizer of {wildcards.suite}"
    shell:
        "python {params.script:q} --source {params.source:q} --output {output.tokenizer:q} 2> {log:q}"


rule download_tokenizer:
    output:
        tokenizer=directory(LAYOUT.tokenizer),
    log:
        LAYOUT.log("download_tokenizer"),
    benchmark:
        LAYOUT.benchmark("download_tokenizer")
    wildcard_constraints:
        suite=one_of(suites_from("hub")),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        run=lambda wildcards: suite_of(wildcards).source.run_names,
        place=first_place,
        tokenizer=tokenizer_flag,
        lock=LAYOUT.lock,
        script=SCRIPTS / "download_tokenizer.py",
    message:
        "Download the tokenizer of {wildcards.suite}"
    shell:
        "python {params.script:q} {params.place:q} --lock {params.lock:q} --output {output.tokenizer:q}"
        " {params.tokenizer:q} 2> {log:q}"


rule fetch:
    input:
        lambda wildcards: [path for download in downloads_of(EXPERIMENT) for path in download.paths],
    message:
        "All that comes from the Hugging Face hub is here"


rule check_checkpoint:
    input:
        checkpoint=lambda wildcards: checkpoint_path(wildcards.suite, wildcards.revision),
        tokenizer=tokenizer_path,
    output:
        checked=LAYOUT.checked,
    log:
        LAYOUT.log("check_checkpoint", "{revision}"),
    benchmark:
        LAYOUT.benchmark("check_checkpoint", "{revision}")
    wildcard_constraints:
        suite=one_of(name for name in EXPERIMENT.suites if has_to_be_checked(EXPERIMENT, name)),
    priority: BEFORE_TASKS + 1  # what is wrong with a checkpoint is said before anything expensive begins
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        pack=40,
    params:
        others=other_downloads,
        script=SCRIPTS / "check_checkpoint.py",
    message:
        "Check that {wildcards.revision} shares the tokenizer of {wildcards.suite}"
    shell:
        "python {params.script:q} --revision {wildcards.revision:q} --checkpoint {input.checkpoint:q}"
        " --others {params.others:q} --tokenizer {input.tokenizer:q} --output {output.checked:q} 2> {log:q}"


rule build_corpus:
    input:
        tokenizer=tokenizer_path,
        text=files_of_corpus,
    output:
        train=directory(LAYOUT.corpus.replace("{split}", "train")),
        validation=directory(LAYOUT.corpus.replace("{split}", "validation")),
    log:
        LAYOUT.log("build_corpus"),
    benchmark:
        LAYOUT.benchmark("build_corpus")
    conda:
        ENVIRONMENT
    threads: lambda wildcards: suite_of(wildcards).corpus.tokenising_processes
    resources:
        mem_mb=memory(4000),
        runtime=720,
        # What grows while the job makes progress, so that a cluster may requeue it for that.
        state=lambda wildcards: LAYOUT.corpus_state.format(**wildcards),
    params:
        language=language,
        corpus=lambda wildcards: as_json(suite_of(wildcards).corpus),
        lock=lambda wildcards: LAYOUT.lock.format(**wildcards),
        script=SCRIPTS / "build_corpus.py",
    message:
        "Build the corpus of {wildcards.suite}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} {params.language:q} --corpus {params.corpus:q}"
        " --tokenizer {input.tokenizer:q} --processes {threads} --lock {params.lock:q} --state {resources.state:q}"
        " --train {output.train:q} --validation {output.validation:q} 2> {log:q}"
