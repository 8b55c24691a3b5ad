# From records to tables, figures and the report. Nothing here trains, and nothing reads a model.
ANALYSIS_CODE = {
    name: code_digest(f"{workflow.basedir}/analysis/{name}.py")
    for name in ("tables", "figures", "report", "mmd_run")
}
TEMPLATES = sorted(glob.glob(f"{workflow.basedir}/analysis/templates/*"))
PRINTED = sorted(glob.glob(f"{workflow.basedir}/analysis/audit/paper/*.csv"))
AUDIT_FILES = PRINTED + sorted(
    path
    for pattern in ("*.j2", "*.json", "claims/*.csv")
    for path in glob.glob(f"{workflow.basedir}/analysis/audit/{pattern}")
)

# Table 5 and Figure 4 look at what diffusion models generate.
MMD_CELLS = [
    cell for cell in GRID.cells if cell.method in config["analysis"]["mmd"]["methods"]
]
MMD = [f"{HOME}/mmd/{cell.path}.json" for cell in MMD_CELLS]
# The first seed of each method.
FIRST = {(cell.dataset, cell.method): cell for cell in reversed(MMD_CELLS)}
CLOUDS = [
    f"{HOME}/representations/{cell.path}.npz"
    for cell in (MMD_CELLS if config["records"] else FIRST.values())
]
if config["records"]:
    MMD, CLOUDS = (
        [path for path in made if os.path.exists(path)] for made in (MMD, CLOUDS)
    )


# For the report's commands that make a run again. Default configuration files are read anyway.
OPTIONS = options_of(
    workflow.config_settings.configfiles or (), workflow.config_settings.config
)


rule plan:
    output:
        f"{OUT}/plan.json",
    params:
        plan=GRID.plan() | {"options": OPTIONS},
    run:
        with open(output[0], "w") as file:
            json.dump(params.plan, file, indent=1)


rule represent:
    input:
        sequences=f"{DATA}/{{dataset}}/sequences.npz",
        record=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/record.json",
        weights=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/weights.safetensors",
    output:
        f"{OUT}/representations/{{dataset}}/{{method}}/seed{{seed}}.npz",
    log:
        f"{OUT}/logs/represent/{{dataset}}/{{method}}/seed{{seed}}.log",
    conda:
        "../../environment.yml"
    threads: GRID.compute.threads or 1
    resources:
        gpu=1 if ON_GPU else 0,
        mem_mb=8000,
        runtime=60,
    params:
        compute=GRID.deciding_compute_json(on_gpu=ON_GPU),
        code=code_digest(f"{workflow.basedir}/workflow/scripts/represent.py"),
    shell:
        "python -m workflow.scripts.represent --sequences {input.sequences} --record {input.record} "
        "--compute {COMPUTE:q} --out {output} > {log} 2>&1"


rule mmd:
    input:
        representations=rules.represent.output,
        record=f"{RUNS}/{{dataset}}/{{method}}/seed{{seed}}/record.json",
    output:
        f"{OUT}/mmd/{{dataset}}/{{method}}/seed{{seed}}.json",
    log:
        f"{OUT}/logs/mmd/{{dataset}}/{{method}}/seed{{seed}}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=ANALYSIS_CODE["mmd_run"],
        users=config["analysis"]["mmd"]["max_users"],
        permutations=config["analysis"]["mmd"]["permutations"],
    shell:
        "python -m analysis.mmd_run --representations {input.representations} --record {input.record} "
        "--max-users {params.users} --permutations {params.permutations} --out {output} > {log} 2>&1"


rule tables:
    input:
        RECORDS,
        STATS,
        MMD,
        TEMPLATES,
        PRINTED,
        plan=rules.plan.output,
    output:
        directory(f"{OUT}/tables"),
    log:
        f"{OUT}/logs/tables.log",
    conda:
        "../../environment.yml"
    params:
        code=ANALYSIS_CODE["tables"],
    shell:
        f"python -m analysis.tables --runs {RUNS} --data {DATA} --plan {{input.plan}} "
        f"--mmd {HOME}/mmd --out {{output}} > {{log}} 2>&1"


rule figures:
    input:
        RECORDS,
        MMD,
        CLOUDS,
        plan=rules.plan.output,
        tables=rules.tables.output,
    output:
        directory(f"{OUT}/figures"),
    log:
        f"{OUT}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        code=ANALYSIS_CODE["figures"],
    shell:
        f"python -m analysis.figures --runs {RUNS} --plan {{input.plan}} --tables {{input.tables}} "
        f"--mmd {HOME}/mmd --representations {HOME}/representations --out {{output}} > {{log}} 2>&1"


rule audit:
    input:
        RECORDS,
        STATS,
        MMD,
        AUDIT_FILES,
        plan=rules.plan.output,
    output:
        directory(f"{OUT}/audit"),
    log:
        f"{OUT}/logs/audit.log",
    conda:
        "../../environment.yml"
    params:
        code=code_digest(f"{workflow.basedir}/analysis/audit/__main__.py"),
        thresholds=[
            f"{name}={value}"
            for name, value in config["analysis"]["audit"].items()
            if name != "verdicts"
        ],
    shell:
        f"python -m analysis.audit paper --runs {RUNS} --plan {{input.plan}} --data {DATA} --mmd {HOME}/mmd "
        "--thresholds {params.thresholds} --out {output} > {log} 2>&1"


rule report:
    input:
        RECORDS,
        STATS,
        TEMPLATES,
        plan=rules.plan.output,
        tables=rules.tables.output,
        figures=rules.figures.output,
        audit=rules.audit.output,
    output:
        f"{OUT}/report.html",
    log:
        f"{OUT}/logs/report.log",
    conda:
        "../../environment.yml"
    params:
        code=ANALYSIS_CODE["report"],
        origin="--made-elsewhere" if config["records"] else "",
    shell:
        f"python -m analysis.report --runs {RUNS} --data {DATA} --plan {{input.plan}} --tables {{input.tables}} "
        "--figures {input.figures} --audit {input.audit}/findings.json {params.origin} --out {output} > {log} 2>&1"


rule partial:
    # Tables of whatever has finished, for a grid that is still running or has failed cells. Always run anew.
    input:
        plan=rules.plan.output,
    log:
        f"{OUT}/logs/partial.log",
    conda:
        "../../environment.yml"
    params:
        out=f"{OUT}/partial",
    shell:
        f"python -m analysis.tables --runs {RUNS} --data {DATA} --plan {{input.plan}} --out {{params.out}} "
        "--skip-corrupt --allow-mixed > {log} 2>&1 && cat {params.out}/table2.md"
