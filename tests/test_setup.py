"""The lock files, pyproject.toml and environment.yml name the same packages in the same versions."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("base.lock", "torch.lock")
CONDA_NAMES = {"pytorch": "torch"}


def read_lock(name: str) -> dict[str, list[str]]:
    """Return each locked package with its versions, as many as the lock has lines for it."""
    versions: dict[str, list[str]] = {}
    for match in re.finditer(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(match[1]), []).append(match[2])
    return versions


def locked_versions() -> dict[str, str]:
    """Return package -> version over both locks."""
    return {package: versions[0] for name in LOCKS for package, versions in read_lock(name).items()}


def declared_requirements() -> list[Requirement]:
    """Return the direct dependencies of pyproject.toml, those for development included.

    The extra `slurm` is for clusters alone: it is not locked.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["dev"])]


def conda_versions() -> dict[str, str]:
    """Return package -> version of environment.yml, under the names that PyPI uses."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pairs = (line.split("=", 1) for line in lines)
    return {CONDA_NAMES.get(name, name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", declared_requirements(), ids=str)
def test_lock_satisfies_pyproject(requirement):
    version = locked_versions().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not locked: run `make lock`"
    assert requirement.specifier.contains(version), f"lock has {requirement.name} {version}: run `make lock`"


def test_conda_environment_equals_lock():
    conda, locked = conda_versions(), locked_versions()
    assert conda.pop("python") in ("3.11", "3.12", "3.13")
    names = {canonicalize_name(requirement.name) for requirement in declared_requirements()}
    assert conda == {name: locked[name] for name in names}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_one_version_and_hashes_of_each_package(name):
    text = (ROOT / "requirements" / name).read_text()
    assert all(len(versions) == 1 for versions in read_lock(name).values())
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_place_of_its_own(name):
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"://|file:|--(extra-)?index-url|--find-links", text)


def test_base_lock_brings_no_cuda():
    cuda = [name for name in read_lock("base.lock") if re.match(r"torch$|triton|cuda-|nvidia-(?!ml-py)", name)]
    assert not cuda, f"base.lock must serve machines without a GPU, but holds {cuda}"


def test_locks_agree_where_they_overlap():
    base, torch = read_lock("base.lock"), read_lock("torch.lock")
    both = base.keys() & torch.keys()
    assert {"sympy", "jinja2"} <= both
    assert {name: base[name] for name in both} == {name: torch[name] for name in both}


def test_torch_is_pinned_once():
    pins = re.findall(r"^torch==(\S+)$", (ROOT / "requirements/torch.in").read_text(), re.MULTILINE)
    assert pins == read_lock("torch.lock")["torch"]


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with the install script and the locks, and no environment."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def write_python(path: Path, *, version: str) -> Path:
    """Write a stand-in interpreter that only knows its version."""
    major, minor = version.split(".")[:2]
    fits = (3, 11) <= (int(major), int(minor)) <= (3, 13)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\nexit {int(not fits)}\n')
    path.chmod(0o755)
    return path


def run_install(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the install script of `folder` with these variables and return what it said."""
    names = ("PYTHON", "TORCH", "TORCH_INDEX")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    script = folder / "requirements/install.sh"
    return subprocess.run([script], env=clean | variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_wrong_python_is_refused_with_the_legal_ones(checkout, version):
    python = write_python(checkout / "bin/python", version=version)
    done = run_install(checkout, PYTHON=str(python))
    assert done.returncode == 1
    assert done.stderr == f"error: PYTHON={python} is Python {version}; Python 3.11, 3.12 or 3.13 is needed\n"
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHON": "/nowhere/python"}, "error: PYTHON=/nowhere/python was not found\n"),
        ({"TORCH": "lokced"}, "error: TORCH=lokced is not known; leave it empty or set TORCH=locked\n"),
        (
            {"TORCH": "locked", "TORCH_INDEX": "https://example.org"},
            "error: TORCH=locked comes from PyPI: leave TORCH_INDEX empty\n",
        ),
    ],
)
def test_wrong_variables_are_refused(checkout, variables, message):
    done = run_install(checkout, **variables)
    assert (done.returncode, done.stderr) == (1, message)


@pytest.fixture
def old_tools(checkout):
    """Return a search path whose only Python is too old."""
    tools = checkout / "bin"
    write_python(tools / "python3", version="3.9.1")
    for name in ("dirname", "cat", "cksum", "sed", "env", "bash", "sh"):
        (tools / name).symlink_to(shutil.which(name))
    return str(tools)


def test_no_python_that_fits_is_said(checkout, old_tools):
    done = run_install(checkout, PATH=old_tools)
    assert done.returncode == 1
    assert done.stderr.startswith("error: python3 is Python 3.9.1; install Python 3.11, 3.12 or 3.13")


def test_environment_is_not_rebuilt_with_its_own_python(checkout, old_tools):
    own = write_python(checkout / ".venv/bin/python3", version="3.12.1")
    done = run_install(checkout, PATH=f"{own.parent}:{old_tools}")
    assert done.stderr.startswith("error: python3 is Python 3.9.1;")
    assert own.exists()
