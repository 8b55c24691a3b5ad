# The whole benchmark: data, training, tables, report. `snakemake -n` prints the plan without running anything.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/datasets.yaml"
configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


if not config["records"]:

    include: "workflow/rules/data.smk"
    include: "workflow/rules/train.smk"


include: "workflow/rules/analysis.smk"


rule all:
    default_target: True
    input:
        # Records are listed beside the report, so that a deleted run is run again.
        RECORDS,
        f"{OUT}/report.html",


rule runs:
    # What has to be done on the machines with GPUs; tables and report can be made elsewhere, with `records`.
    input:
        RECORDS,
        STATS,


onsuccess:
    made = {job.rule.name for job in workflow.dag.jobs}
    if "report" in made:
        print(f"done: report in {OUT}/report.html, tables in {OUT}/tables/")
    else:
        print(f"done: what was asked for is in {OUT}/")
    for line in failures(RECORDS):
        print(f"no result: {line}")


onerror:
    print(
        "Some jobs failed; what finished is kept. Run the same command again to resume, or the same with `-- partial` at "
        f"its end for tables of what is there, in {OUT}/partial/."
    )
