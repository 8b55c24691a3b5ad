"""Digests: what must rerun a job changes them, what must not does not."""

import shutil

import pytest

from harness import digest
from harness.digest import code_digest, file_sha256, imported_files, value_sha256

SOURCE = '''"""Docstring."""
from harness import numbers

def answer():
    """Say it."""
    return numbers.ANSWER  # a comment
'''


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small repository that digests take for the whole."""
    monkeypatch.setattr(digest, "ROOT", tmp_path)
    for name, text in {
        "harness/__init__.py": "",
        "harness/numbers.py": "ANSWER = 42\n",
        "harness/unused.py": "X = 1\n",
        "baselines/__init__.py": "",
        "baselines/main.py": SOURCE,
        "package/__init__.py": "",
        "package/entry.py": "from .near import y\nfrom . import far\nfrom ..harness import numbers\n",
        "package/near.py": "y = 1\n",
        "package/far.py": "z = 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    clear()
    yield tmp_path
    clear()


def clear():
    digest._module_digest.cache_clear()
    digest._imports.cache_clear()


def digest_after(tree, name, text, root="baselines/main.py"):
    (tree / name).write_text(text)
    clear()
    return code_digest(tree / root)


def test_comments_docstrings_and_layout_change_nothing(tree):
    before = code_digest(tree / "baselines/main.py")
    edited = SOURCE.replace("Docstring.", "Another.").replace("Say it.", "Said.").replace("  # a comment", "")
    assert digest_after(tree, "baselines/main.py", "# new\n\n" + edited.replace("    return", "\n    return")) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("numbers.ANSWER", "numbers.ANSWER + 1"), ("def answer()", "def answer(x=1)"), ("return ", "yield ")],
)
def test_code_changes_it(tree, old, new):
    before = code_digest(tree / "baselines/main.py")
    assert digest_after(tree, "baselines/main.py", SOURCE.replace(old, new)) != before


def test_a_constant_in_an_imported_module_changes_it(tree):
    before = code_digest(tree / "baselines/main.py")
    assert digest_after(tree, "harness/numbers.py", "ANSWER = 43\n") != before


def test_a_package_initialiser_counts(tree):
    before = code_digest(tree / "baselines/main.py")
    assert digest_after(tree, "harness/__init__.py", "import os\n") != before


def test_files_nobody_imports_do_not_count(tree):
    before = code_digest(tree / "baselines/main.py")
    assert digest_after(tree, "harness/unused.py", "X = 2\n") == before
    assert digest_after(tree, "harness/extra.py", "X = 2\n") == before


@pytest.mark.parametrize("name", ["package/near.py", "package/far.py", "harness/numbers.py"])
def test_relative_imports_are_followed(tree, name):
    before = code_digest(tree / "package/entry.py")
    assert digest_after(tree, name, "ANSWER = y = z = 5\n", root="package/entry.py") != before


def test_imports_inside_functions_are_followed(tree):
    before = digest_after(tree, "baselines/main.py", "def f():\n    import harness.numbers\n")
    assert digest_after(tree, "harness/numbers.py", "ANSWER = 1\n") != before


def test_a_string_in_the_middle_of_a_function_is_not_a_docstring(tree):
    before = digest_after(tree, "baselines/main.py", "def f():\n    x = 1\n    return 'a'\n")
    assert digest_after(tree, "baselines/main.py", "def f():\n    x = 1\n    return 'b'\n") != before


def test_moving_the_checkout_changes_nothing(tree, tmp_path_factory, monkeypatch):
    before = code_digest(tree / "baselines/main.py")
    other = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(tree, other)
    monkeypatch.setattr(digest, "ROOT", other)
    clear()
    assert code_digest(other / "baselines/main.py") == before


def test_editing_one_baseline_leaves_another_alone():
    files = {str(path.relative_to(digest.ROOT)) for path in imported_files([digest.ROOT / "baselines/sasrec.py"])}
    assert {"baselines/sasrec.py", "harness/layers.py", "harness/windows.py", "harness/streams.py"} <= files
    contestants = {name for name in files if name.startswith(("baselines/", "aligndiff/", "analysis/"))}
    assert contestants - {"baselines/__init__.py"} == {"baselines/sasrec.py"}
    assert "harness/gaussian.py" not in files


def test_the_training_script_reaches_no_contestant():
    files = imported_files([digest.ROOT / "workflow/scripts/train.py"])
    assert not [path for path in files if path.parent.name in ("baselines", "aligndiff", "analysis")]
    assert digest.ROOT / "harness/run.py" in files


def test_value_digest_ignores_key_order_only():
    assert value_sha256({"a": 1, "b": [1, 2]}) == value_sha256({"b": [1, 2], "a": 1})
    assert value_sha256({"a": 1, "b": [2, 1]}) != value_sha256({"a": 1, "b": [1, 2]})
    with pytest.raises(ValueError):
        value_sha256({"a": float("nan")})


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
