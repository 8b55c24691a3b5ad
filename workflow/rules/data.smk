# Raw files, their sequences, and Table 1's counts.

# Where else to look for raw files. A global and not a parameter: to name a mirror must not fetch anew what is there.
MIRROR = f"--mirror {shlex.quote(config['mirror'])}" if config["mirror"] else ""
SEQUENCES_ONLY = ("filter", "deduplicate", "expected", "community_fingerprint")


def entry(*left_out):
    """A dataset's entry without its label, its licence and what else decides nothing here, so that no change of these
    reruns anything."""

    def json_of(wildcards):
        values = config["datasets"][wildcards.dataset]
        kept = {key: values[key] for key in values if key not in ("licence", *left_out)}
        return json.dumps(kept | {"display": wildcards.dataset}, sort_keys=True)

    return json_of


rule download:
    output:
        f"{config['raw_dir']}/{{dataset}}/{{file}}",
    log:
        f"{OUT}/logs/download/{{dataset}}/{{file}}.log",
    conda:
        "../../environment.yml"
    params:
        spec=entry(*SEQUENCES_ONLY),
    shell:
        "python -m workflow.scripts.download --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--target {output} {MIRROR} 2>&1 | tee {log}"


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
        spec=entry(),
        code=code_digest(f"{workflow.basedir}/workflow/scripts/preprocess.py"),
    shell:
        "python -m workflow.scripts.preprocess --dataset {wildcards.dataset} --spec {params.spec:q} "
        "--source {input:q} --sequences {output.sequences} --stats {output.stats} 2>&1 | tee {log}"
