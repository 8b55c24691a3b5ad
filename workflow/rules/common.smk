# What all rules share: checked configuration, names, paths. No logic that a test could not reach lives here;
# it is in harness/grid.py. Never import the package `workflow` in these files: Snakemake has an object of that name.
import json
import os
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from harness.configuration import check
from harness.datasets import DatasetSpec
from harness.gpu import visible_devices
from harness.digest import code_digest
from harness.grid import Grid

# Jobs find this checkout and this interpreter, whatever the working directory and the caller's PATH.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")])
)
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)

try:
    check(config, f"{workflow.basedir}/config/config.schema.yaml")
    GRID = Grid(config)
except ValueError as error:
    raise WorkflowError(str(error))

OUT = config["output"]
RUNS = f"{OUT}/runs"
RECORDS = [f"{RUNS}/{cell.path}/record.json" for cell in GRID.cells]
# Without a GPU the resource is not asked for, so CPU jobs are limited by cores alone.
ON_GPU = GRID.compute.device == "cuda" or (
    GRID.compute.device == "auto" and bool(visible_devices())
)


def one_of(names):
    return "|".join(map(re.escape, sorted(names))) or "none"


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    method=one_of(GRID.contestants),
    seed=r"\d+",


def raw_file(wildcards):
    spec = DatasetSpec.from_mapping(
        wildcards.dataset, config["datasets"][wildcards.dataset]
    )
    return spec.raw_path(wildcards.dataset, config["raw_dir"])
