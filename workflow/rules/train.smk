# One job per cell of the grid. Snakemake deletes declared outputs before a rerun, so checkpoints are none, and a finished
# run keeps links to its outputs: harness/run_files.py.

# When to save and when to stop. A global and not a parameter, because a change of it must not rerun what is finished.
CLOCK = GRID.clock_json()


# What decides a cell's result, so that a change of it, and only that, reruns the cell.
DECIDING = {
    "overrides": lambda wc: json.dumps(
        GRID.deciding_overrides(wc.method), sort_keys=True
    ),
    "settings": lambda wc: GRID.settings_sha256(wc.dataset, wc.method),
    "code": lambda wc: GRID.code_digest(wc.method),
    "base": lambda wc: GRID.contestants[wc.method].method.name,
    "compute": GRID.deciding_compute_json(on_gpu=ON_GPU),
}


rule train:
    input:
        sequences=f"{DATA}/{{dataset}}/sequences.npz",
    output:
        record=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/record.json",
        ranks=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/ranks.npz",
        history=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/history.csv",
        weights=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/weights.safetensors",
    log:
        f"{OUT}/logs/train/{{dataset}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{OUT}/logs/train/{{dataset}}/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=one_of(GRID.trained()),
    conda:
        "../../environment.yml"
    threads: GRID.compute.threads or 1
    resources:
        gpu=1 if ON_GPU else 0,
        mem_mb=8000,
        runtime=600,
    params:
        **DECIDING,
        folder=subpath(output.record, parent=True),
        checkpoints=f"{OUT}/checkpoints/{{dataset}}/{{method}}/seed{{seed}}",
    shell:
        "python -m workflow.scripts.train --sequences {input.sequences} --dataset {wildcards.dataset} "
        "--method {params.base} --name {wildcards.method} --seed {wildcards.seed} --overrides {params.overrides:q} "
        "--compute {COMPUTE:q} --clock {CLOCK:q} --out {params.folder} --checkpoints {params.checkpoints} "
        "--expect-code {params.code} --expect-settings {params.settings} > {log} 2>&1"


rule reevaluate:
    input:
        sequences=f"{DATA}/{{dataset}}/sequences.npz",
        weights=lambda wc: f"{RUNS}/{wc.dataset}/{GRID.contestants[wc.method].weights_of}/seed{wc.seed}/weights.safetensors",
    output:
        record=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/record.json",
        ranks=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/ranks.npz",
    log:
        f"{OUT}/logs/reevaluate/{{dataset}}/{{method}}/seed{{seed}}.log",
    wildcard_constraints:
        method=one_of(GRID.reusing()),
    conda:
        "../../environment.yml"
    threads: GRID.compute.threads or 1
    resources:
        gpu=1 if ON_GPU else 0,
        mem_mb=8000,
        runtime=120,
    params:
        **DECIDING,
        folder=subpath(output.record, parent=True),
    shell:
        "python -m workflow.scripts.train --sequences {input.sequences} --dataset {wildcards.dataset} "
        "--method {params.base} --name {wildcards.method} --seed {wildcards.seed} --overrides {params.overrides:q} "
        "--compute {COMPUTE:q} --out {params.folder} --weights {input.weights} "
        "--expect-code {params.code} --expect-settings {params.settings} > {log} 2>&1"
