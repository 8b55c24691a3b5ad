"""Digests that decide what must be rerun and what may be averaged."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_sha256(value: Any) -> str:
    """Digest of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = body[1:]  # type: ignore[union-attr]
    return tree


@cache
def _module_digest(path: Path) -> str:
    """Digest of a module's syntax tree: comments, docstrings and layout do not count."""
    tree = _without_docstrings(ast.parse(path.read_text(encoding="utf-8")))
    return hashlib.sha256(ast.dump(tree, include_attributes=False).encode()).hexdigest()


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Modules of this repository that `path` imports, at top level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            found |= set(_files_of(name))
    return tuple(sorted(found))


def _files_of(module: str) -> list[Path]:
    """Source files that importing `module` runs, its packages' __init__ files included."""
    parts = module.split(".")
    files = []
    for depth in range(1, len(parts) + 1):
        stem = ROOT.joinpath(*parts[:depth])
        files += [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()]
    return files


def imported_files(roots: Iterable[Path]) -> list[Path]:
    """Every module of this repository reachable from `roots` by imports, sorted, `roots` included."""
    seen: set[Path] = set()
    pending = [Path(root).resolve() for root in roots]
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += _imports(path)
    return sorted(seen)


def code_digest(*roots: Path) -> str:
    """Digest of all code that `roots` can reach through imports.

    Snakemake does not notice an edited import. Rules put this digest into `params`, so that a changed constant
    reruns exactly the jobs that use it, and a changed comment reruns nothing.
    """
    files = imported_files(roots)
    lines = [f"{path.relative_to(ROOT)} {_module_digest(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
