"""Activations: read once for each checkpoint and site, shared by all that is trained on them."""


rule harvest_activations:
    input:
        checkpoint=lambda wildcards: checkpoint_path(wildcards.suite, wildcards.revision),
        checked=checks_of,
        corpora=expand(LAYOUT.corpus, split=HARVESTED, allow_missing=True),
        tokenizer=tokenizer_to_agree_with,
    output:
        stores=directory(expand(LAYOUT.activations, split=HARVESTED, allow_missing=True)),
    log:
        LAYOUT.log("harvest_activations", "{site}-{revision}"),
    benchmark:
        LAYOUT.benchmark("harvest_activations", "{site}-{revision}")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=720,
        gpus=gpus(),
        device_map=device_map,
    params:
        settings=harvest_flags,
        loading=loading,
        script=SCRIPTS / "harvest_activations.py",
    message:
        "Harvest {wildcards.suite} {wildcards.revision} at {wildcards.site}"
    shell:
        "python {params.script:q} --suite {wildcards.suite:q} --revision {wildcards.revision:q}"
        " --checkpoint {input.checkpoint:q} --site {wildcards.site:q} --corpora {input.corpora:q}"
        " --outputs {output.stores:q} {params.settings:q} --loading {params.loading:q}"
        " --device-map {resources.device_map} 2> {log:q}"
