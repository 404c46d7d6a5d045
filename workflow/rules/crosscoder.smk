"""Crosscoders: one for each comparison, variant and seed."""


rule train_crosscoder:
    input:
        unpack(training_data),
    output:
        crosscoder=directory(LAYOUT.crosscoder),
        history=directory(LAYOUT.training),
    log:
        LAYOUT.log("train_crosscoder", RUN),
    benchmark:
        LAYOUT.benchmark("train_crosscoder", RUN)
    conda:
        ENVIRONMENT
    threads: EXPERIMENT.training.processes // EXPERIMENT.training.nodes
    resources:
        mem_mb=memory(16000),
        runtime=1440,
        # Of each node, as threads and memory are.
        gpus=gpus(EXPERIMENT.training.processes // EXPERIMENT.training.nodes, models=STREAMING),
        # No parameters, since they do not change the result, so they rerun nothing; and not `gpus`, which a profile may cap.
        processes=EXPERIMENT.training.processes,
        shards=EXPERIMENT.training.dictionary_shards,
        save_every=EXPERIMENT.training.save_every,
        nodes=EXPERIMENT.training.nodes,
        device_map=device_map,
        # What grows while the job makes progress, so that a cluster may requeue it for that.
        state=lambda wildcards: LAYOUT.training_state.format(**wildcards),
    params:
        data=training_flags,
        settings=lambda wildcards: to_flags(EXPERIMENT.variants[wildcards.variant]),
        parts=EXPERIMENT.training.parts,
        script=SCRIPTS / "train_crosscoder.py",
    message:
        "Train a {wildcards.variant} crosscoder on {wildcards.comparison} (progress in {log})"
    shell:
        "python {params.script:q} --processes {resources.processes} --machines {resources.nodes}"
        " --dictionary-shards {resources.shards} --save-every {resources.save_every} --parts {params.parts}"
        " --comparison {wildcards.comparison:q} --variant {wildcards.variant:q} --seed {wildcards.seed:q} --crosscoder {output.crosscoder:q}"
        " --history {output.history:q} --device-map {resources.device_map} {params.data:q} {params.settings:q}"
        " 2> {log:q}"


rule evaluate_crosscoder:
    input:
        checkpoints=checkpoint_paths,
        crosscoder=LAYOUT.crosscoder,
        activations=activations("validation"),
        corpus=LAYOUT.corpus.replace("{split}", "validation"),
    output:
        evaluation=directory(LAYOUT.evaluation),
        own_codes=directory(LAYOUT.own_codes),
    log:
        LAYOUT.log("evaluate_crosscoder", RUN),
    benchmark:
        LAYOUT.benchmark("evaluate_crosscoder", RUN)
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=120,
        gpus=gpus(),
        device_map=device_map,
    params:
        revisions=revisions,
        tokens_seen=tokens_seen,
        settings=to_flags(EXPERIMENT.evaluation),
        loading=loading,
        script=SCRIPTS / "evaluate_crosscoder.py",
    message:
        "Evaluate the {wildcards.variant} crosscoder on {wildcards.comparison}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revisions {params.revisions:q}"
        " --checkpoints {input.checkpoints:q} --tokens-seen {params.tokens_seen:q} --crosscoder {input.crosscoder:q}"
        " --activations {input.activations:q} --corpus {input.corpus:q} --output {output.evaluation:q}"
        " --own-codes {output.own_codes:q} {params.settings:q} --loading {params.loading:q}"
        " --device-map {resources.device_map} 2> {log:q}"
