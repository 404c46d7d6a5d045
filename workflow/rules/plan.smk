"""What the experiment will cost, before it is run; scripts/plan.py by hand takes the accelerator and more."""


rule plan:
    log:
        f"{LAYOUT.root}/plan.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
    params:
        experiment=as_json(EXPERIMENT),
        script=SCRIPTS / "plan.py",
    message:
        "Plan the experiment"
    shell:
        "printf '%s' {params.experiment:q} | python {params.script:q} /dev/stdin 2> >(tee {log:q} >&2)"
