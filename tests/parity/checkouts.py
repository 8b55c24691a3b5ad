"""Where checkouts of reference implementations lie, and how their modules are imported unmodified.

A folder of references holds one checkout per method, named like the method: `git clone`, then `git checkout` of the
commit that the method's module names. The default folder is resources/references, or what the environment variable
ALIGNDIFF_REFERENCES says; git ignores it, as no code of a reference is part of this repository.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
METHODS = tuple(sorted(path.stem for path in (Path(__file__).parent / "methods").glob("*.py")))


def default_folder() -> Path:
    return Path(os.environ.get("ALIGNDIFF_REFERENCES", ROOT / "resources" / "references"))


def module_of(method: str) -> ModuleType:
    """The module that compares `method`: REPOSITORY, COMMIT, and compare(checkout)."""
    return importlib.import_module(f"tests.parity.methods.{method}")


def find(method: str, folder: Path) -> Path | None:
    """The checkout of a method's reference, or None if there is none.

    Raises ValueError if it is at another commit or was edited.
    """
    path, module = folder / method, module_of(method)
    if not path.is_dir():
        return None
    commit = _git(path, "rev-parse", "HEAD")
    if not commit.startswith(module.COMMIT):
        raise ValueError(f"{path} is at {commit[:7]}; git checkout {module.COMMIT} there")
    if edited := _git(path, "diff", "--name-only", "HEAD"):
        raise ValueError(f"{path} was edited ({edited.split()[0]}); parity is with the released code")
    return path


def obstacle(method: str, folder: Path) -> str | None:
    """What keeps a method from being compared, and what to do about it; None if nothing."""
    if find(method, folder) is None:
        return f"no checkout of the reference; {how_to_get(method, folder)}"
    return getattr(module_of(method), "obstacle", lambda: None)()


def how_to_get(method: str, folder: Path) -> str:
    module = module_of(method)
    path = folder / method
    return f"git clone https://github.com/{module.REPOSITORY} {path} && git -C {path} checkout {module.COMMIT}"


def _git(path: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(path), *command], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{path} is no git checkout: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported under their own names inside, and forget them afterwards."""
    before, path = set(sys.modules), list(sys.path)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = writes_bytecode
        for name in set(sys.modules) - before:
            if any(Path(place).is_relative_to(folder) for place in _places(sys.modules[name])):
                del sys.modules[name]


def _places(module: ModuleType) -> list[str]:
    """A module's file, or the folders of a package."""
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", []))
