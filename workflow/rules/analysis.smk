# From records to tables, figures and the report. Nothing here trains, and nothing reads a model.
ANALYSIS_CODE = {
    name: code_digest(f"{workflow.basedir}/analysis/{name}.py")
    for name in ("tables", "figures", "report")
}


rule plan:
    output:
        f"{OUT}/plan.json",
    params:
        plan=GRID.plan(),
    run:
        with open(output[0], "w") as file:
            json.dump(params.plan, file, indent=1)


rule tables:
    input:
        RECORDS,
        STATS,
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
        f"python -m analysis.tables --runs {RUNS} --data {DATA} --plan {{input.plan}} --out {{output}} > {{log}} 2>&1"


rule figures:
    input:
        RECORDS,
        plan=rules.plan.output,
    output:
        directory(f"{OUT}/figures"),
    log:
        f"{OUT}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        code=ANALYSIS_CODE["figures"],
    shell:
        f"python -m analysis.figures --runs {RUNS} --plan {{input.plan}} --out {{output}} > {{log}} 2>&1"


rule audit:
    output:
        directory(f"{OUT}/audit"),
    log:
        f"{OUT}/logs/audit.log",
    conda:
        "../../environment.yml"
    params:
        code=code_digest(f"{workflow.basedir}/analysis/audit/__main__.py"),
    shell:
        "python -m analysis.audit paper --out {output} > {log} 2>&1"


rule report:
    input:
        RECORDS,
        STATS,
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
    shell:
        f"python -m analysis.report --runs {RUNS} --data {DATA} --plan {{input.plan}} --tables {{input.tables}} "
        "--figures {input.figures} --audit {input.audit}/findings.json --out {output} > {log} 2>&1"


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
        "> {log} 2>&1 && cat {params.out}/table2.md"
