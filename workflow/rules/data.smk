# Raw files, their sequences, and Table 1's counts.


rule download:
    output:
        f"{config['raw_dir']}/{{dataset}}/{{file}}",
    log:
        f"{OUT}/logs/download/{{dataset}}/{{file}}.log",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: json.dumps(config["datasets"][wc.dataset]),
        mirror=f"--mirror {config['mirror']}" if config["mirror"] else "",
    shell:
        "python -m workflow.scripts.download --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--target {output} {params.mirror} 2>&1 | tee {log}"


rule preprocess:
    input:
        raw_file,
    output:
        sequences=f"{DATA}/{{dataset}}/sequences.npz",
        stats=f"{DATA}/{{dataset}}/stats.json",
    log:
        f"{OUT}/logs/preprocess/{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: json.dumps(config["datasets"][wc.dataset]),
        code=code_digest(f"{workflow.basedir}/workflow/scripts/preprocess.py"),
    shell:
        "python -m workflow.scripts.preprocess --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--source {input:q} --sequences {output.sequences} --stats {output.stats} 2>&1 | tee {log}"
