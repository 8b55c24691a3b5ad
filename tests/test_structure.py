"""Imports point one way, files stay small, and no module has a name that says nothing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "aligndiff", "baselines", "workflow", "analysis", "benchmarks")
OURS = (*PACKAGES, "tests")
MAX_LINES = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def list_modules() -> list[str]:
    """Return the Python files of our packages, relative to the repository root."""
    return sorted(str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def list_workflow_files() -> list[str]:
    """Return the Snakefile and the rule files, relative to the repository root."""
    rules = (ROOT / "workflow").rglob("*.smk")
    return sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("Snakefile"), *rules))


def our_imports(source: str, *, module: str) -> set[str]:
    """Return the dotted names of ours that the source of `module` imports, inside functions too."""
    package = module.removesuffix(".py").split("/")[:-1]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, node.module] if node.module else base
            names.update(".".join([*base, alias.name]) for alias in node.names)
    return {name for name in names if name.split(".")[0] in OURS}


def is_allowed(name: str, *, module: str) -> bool:
    """Say whether the file `module` may import the dotted `name`."""
    package, target = module.split("/")[0], name.split(".")[0]
    if package == "harness":
        return target == "harness"
    if package == "aligndiff":
        return target in ("harness", "aligndiff")
    if package == "baselines":
        return target == "harness"
    if package == "analysis":
        return target == "analysis" or re.match(r"harness\.(cli|deviation|record|metrics)\b", name) is not None
    if package == "workflow":
        return target in ("harness", "workflow", "analysis")
    if package == "benchmarks":
        return target != "tests"
    raise ValueError(f"{module} lies in no package of ours: {', '.join(PACKAGES)}")


def forbidden_imports(source: str, *, module: str) -> list[str]:
    """Return what `module` imports although the import rules forbid it."""
    return sorted(name for name in our_imports(source, module=module) if not is_allowed(name, module=module))


@pytest.mark.parametrize("module", list_modules())
def test_imports_point_one_way(module):
    forbidden = forbidden_imports((ROOT / module).read_text(), module=module)
    assert not forbidden, f"{module} must not import {', '.join(forbidden)}"


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("harness/fit.py", "def f():\n    import aligndiff.denoiser", ["aligndiff.denoiser"]),
        ("harness/fit.py", "from .split import Split\nimport torch", []),
        ("aligndiff/energy.py", "from baselines import sasrec", ["baselines.sasrec"]),
        ("aligndiff/energy.py", "from . import denoiser\nfrom harness import masking", []),
        ("baselines/gru4rec.py", "from .sasrec import SASRec", ["baselines.sasrec.SASRec"]),
        ("baselines/gru4rec.py", "from . import sasrec", ["baselines.sasrec"]),
        ("baselines/gru4rec.py", "from harness.learner import Learner", []),
        ("baselines/gru4rec.py", "import workflow.scripts", ["workflow.scripts"]),
        ("workflow/scripts/train.py", "from aligndiff import build", ["aligndiff.build"]),
        ("workflow/scripts/progress.py", "from workflow.scripts import forecast", []),
        ("analysis/tables.py", "from harness import record, fit", ["harness.fit"]),
        ("analysis/tables.py", "import harness.metrics\nfrom analysis.audit import claims", []),
        ("benchmarks/ranking.py", "from tests.conftest import shared_dir", ["tests.conftest.shared_dir"]),
    ],
)
def test_import_rules_catch_planted_mistakes(module, source, expected):
    assert forbidden_imports(source, module=module) == expected


@pytest.mark.parametrize("path", list_workflow_files())
def test_rule_files_leave_the_workflow_object_alone(path):
    # Inside a Snakefile `workflow` is a live object; importing the package of that name replaces it.
    found = re.findall(r"^\s*(?:import|from)\s+workflow\b.*", (ROOT / path).read_text(), re.MULTILINE)
    assert not found, f"{path} must not import the package `workflow`: {found}"


@pytest.mark.parametrize("path", [*list_modules(), *list_workflow_files()])
def test_files_can_be_read_in_one_sitting(path):
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines, at most {MAX_LINES} are allowed"


@pytest.mark.parametrize("module", list_modules())
def test_module_names_say_what_is_inside(module):
    words = [word.strip("_") for word in module.removesuffix(".py").split("/")]
    empty = [word for word in words if word in EMPTY_NAMES or word.split("_")[-1] in EMPTY_NAMES]
    assert not empty, f"{module}: name it after the thing it holds"
