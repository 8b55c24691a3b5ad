import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.audit.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "analysis/audit/examples"


def test_paper_writes_three_files_and_prints_ten_lines(tmp_path, capsys):
    assert main(["paper", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.strip().splitlines()
    assert 1 < len(shown) <= 10 and shown[0].startswith("AlignDiff: the printed tables:")
    assert {path.name for path in tmp_path.iterdir()} == {"findings.json", "findings.md", "findings.html"}


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    """As `make audit | head` has it; the files are written all the same."""
    command = f"{sys.executable} -m analysis.audit paper --out {tmp_path} | true"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert [line for line in result.stderr.splitlines() if not line.startswith("Written:")] == []
    assert (tmp_path / "findings.json").is_file()


def test_clean_example_has_no_objection(capsys):
    assert main(["check", str(EXAMPLES / "diffurec_published.csv"), "--strict"]) == 0
    assert "0 objections" in capsys.readouterr().out


def test_example_with_defects(capsys, tmp_path):
    arguments = ["check", str(EXAMPLES / "aligndiff_excerpt.csv"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "4 objections" in capsys.readouterr().out
    findings = json.loads((tmp_path / "findings.json").read_text())["findings"]
    kinds = [finding["kind"] for finding in findings]
    assert kinds.count("impossible") == 3 and kinds.count("unsupported") == 1
    assert main([*arguments, "--strict"]) == 1


def test_users_add_the_whole_count_test(capsys):
    path = str(EXAMPLES / "aligndiff_excerpt.csv")
    assert main(["check", path, "--users", "beauty=22363", "--runs", "5"]) == 0
    assert "whole_counts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "Beauty"], "write DATASET=N"),
        (["--users", "Beauty=0"], "write DATASET=N"),
        (["--users", "Sports=5"], "the table has Beauty, ML-1M"),
        (["--runs", "0"], "must be 1 or more"),
    ],
)
def test_bad_arguments_exit_2_in_one_line(capsys, arguments, message):
    assert main(["check", str(EXAMPLES / "aligndiff_excerpt.csv"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("option", ["--plan", "--data", "--mmd", "--thresholds"])
def test_what_is_for_runs_needs_runs(tmp_path, capsys, option):
    assert main(["paper", "--out", str(tmp_path), option, "alpha=0.1"]) == 2
    assert f"{option} is for an audit against runs" in capsys.readouterr().err


def test_malformed_file_exits_2_in_one_line(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("dataset,metric,model,value\nD,HR@10,A,eight\n")
    assert main(["check", str(path)]) == 2
    error = capsys.readouterr().err
    assert "line 2" in error and error.count("\n") == 1


def test_runs_as_a_module_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; import runpy; sys.argv = ['audit', 'paper', '--out', sys.argv[1]]; "
    )
    code += "runpy.run_module('analysis.audit', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_missing_file_is_named_in_one_line_or_shown_with_its_traceback(capsys, monkeypatch, tmp_path):
    command = ["check", str(tmp_path / "none.csv")]
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert "none.csv" in shown and "Errno" not in shown and len(shown.splitlines()) == 1
    monkeypatch.setenv("ALIGNDIFF_TRACEBACK", "1")
    with pytest.raises((ValueError, OSError), match=r"none\.csv"):
        main(command)
