# What all rules share: checked configuration, names, paths. No logic that a test could not reach lives here;
# it is in harness/grid.py. Never import the package `workflow` in these files: Snakemake has an object of that name.
import glob
import json
import os
import re
import shlex
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

sys.path.insert(0, workflow.basedir)

from harness.configuration import check, check_datasets, options_of, own_sweeps, typed
from harness.datasets import check_mirror, deciding
from harness.gpu import visible_devices
from harness.digest import code_digest
from harness.grid import Grid
from harness.record import failures
from harness.settings import read_yaml

# Jobs find this checkout and this interpreter, whatever the working directory and the caller's PATH.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")])
)
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)

update_config(config, typed(workflow.config_settings.config))
try:
    given = [
        *map(read_yaml, workflow.config_settings.configfiles),
        workflow.config_settings.config,
    ]
    config.update(own_sweeps(config, given))
    check(config, f"{workflow.basedir}/config/config.schema.yaml")
    GRID = Grid(config)
    # A job on another machine need not see the raw files.
    needed = GRID.datasets if workflow.is_main_process and not config["records"] else []
    SPECS = check_datasets(config["datasets"], needed)
    if needed:
        check_mirror(config["mirror"])
except ValueError as error:
    raise WorkflowError(str(error))

OUT = config["output"]
# Finished runs of another place may stand in for training; then only what is there is analysed.
HOME = config["records"] or OUT
RUNS, DATA = f"{HOME}/runs", f"{HOME}/data"
RECORDS = [f"{RUNS}/{cell.path}/record.json" for cell in GRID.cells]
STATS = [f"{DATA}/{dataset}/stats.json" for dataset in GRID.datasets]
if config["records"]:
    RECORDS, STATS = (
        [path for path in paths if os.path.exists(path)] for paths in (RECORDS, STATS)
    )
    if not RECORDS:
        raise WorkflowError(f"records: no run of this grid lies under {RUNS}/")
# Without a GPU the resource is not asked for, so CPU jobs are limited by cores alone.
ON_GPU = GRID.compute.device == "cuda" or (
    GRID.compute.device == "auto" and bool(visible_devices())
)
# Given to jobs as a global and not as a parameter: of this, a change of what decides no result must rerun nothing.
COMPUTE = GRID.compute_json(on_gpu=ON_GPU)


def one_of(names):
    return "|".join(map(re.escape, sorted(names))) or "none"


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    method=one_of(GRID.contestants),
    seed=r"\d+",


def raw_file(wildcards):
    return SPECS[wildcards.dataset].raw_path(wildcards.dataset, config["raw_dir"])
