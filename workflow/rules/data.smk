# Raw files, their sequences, and Table 1's counts.

# Where else to look for raw files. A global and not a parameter: to name a mirror must not fetch anew what is there.
MIRROR = f"--mirror {shlex.quote(config['mirror'])}" if config["mirror"] else ""


def entry(raw_file):
    """What of a dataset's entry its raw file, or its sequences, depend on."""
    return lambda wc: json.dumps(
        deciding(wc.dataset, config["datasets"][wc.dataset], raw_file=raw_file)
    )


# A dataset with a `file` of one's own is never fetched, wherever that file lies.
DOWNLOADED = [name for name, spec in SPECS.items() if spec.urls and spec.file is None]


rule download:
    # Not deleted before the job: it may have been put there by hand. The script looks at it and fetches it only if it must.
    output:
        update(f"{config['raw_dir']}/{{dataset}}/{{file}}"),
    log:
        f"{OUT}/logs/download/{{dataset}}/{{file}}.log",
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    conda:
        "../../environment.yml"
    params:
        spec=entry(raw_file=True),
    shell:
        "python -m workflow.scripts.download --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--target {output:q} {MIRROR} 2>&1 | tee {log:q}"


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
        spec=entry(raw_file=False),
        code=code_digest(f"{workflow.basedir}/workflow/scripts/preprocess.py"),
    shell:
        "python -m workflow.scripts.preprocess --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--source {input:q} --sequences {output.sequences} --stats {output.stats} 2>&1 | tee {log}"
