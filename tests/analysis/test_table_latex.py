"""LaTeX tables say what the others say, mean nothing to TeX but text, and compile without an overfull line."""

import re
import shutil
import subprocess

import pytest

from analysis.measured import Cell
from analysis.table_latex import as_latex, escaped
from analysis.table_model import Block, Row, Table

NASTY = '[x] a_b & 100% #1 $2 {c} \\d ~e ^f <g> |h| "i" *j* é ω ± − × ł 中'
METRICS = tuple(f"{name}@{k}" for name in ("HR", "NDCG") for k in (5, 10, 20))


def row(label, value=None, *, printed="", mark="", n=5, note="", group=""):
    std = 0.12 if value is not None and n > 1 else None
    cell = Cell(printed, value, std, n if value is not None else 0, 5, note=note, mark=mark)
    return Row(label, label, (cell,) * len(METRICS), group)


@pytest.fixture
def table():
    """A wide table with everything: marks, gaps, notes, a derived row, other rows, and signs that TeX reads."""
    rows = (row("AlignDiff", 12.34, printed="8.1260", mark="best"), row("SASRec", 5.6, mark="second", printed="6.2648"))
    rows += (row(NASTY, 1.2, n=1, note=f"1 of 5 seeds: {NASTY}"), row("Caser", printed="2.8166"))
    derived = (Row("AlignDiff over the best baseline, %", "", (Cell("2.8", -3.4, decimals=1),) * len(METRICS)),)
    others = tuple(row(f"AlignDiff (released, number {i})", 3.1, group=NASTY) for i in range(30))
    block = Block("beauty", "Beauty", "kept", METRICS, rows, derived, others)
    return Table("table2", "Table 2. Main comparison", NASTY, "percent", (block,))


def lines_with(text, label):
    return [line for line in text.split("\n") if line.startswith(label)]


def test_rows_hold_marks_spread_printed_figures_and_runs(table):
    found = lines_with(as_latex(table), "AlignDiff &")
    cells = r" & \textbf{12.34 $\pm$ 0.12} & 8.1260" * 3
    assert found == [f"AlignDiff{cells} & 5 \\\\"] * 2  # HR, then NDCG below
    assert lines_with(as_latex(table), "SASRec")[0].count(r"\underline{5.60 $\pm$ 0.12}") == 3
    assert lines_with(as_latex(table), "Caser")[0] == "Caser" + " & not run & 2.8166" * 3 + r" & 0 of 5 \\"
    assert lines_with(as_latex(table), "AlignDiff over")[0].count("$-$3.4 & 2.8") == 3
    assert "1 of 5 seeds" in as_latex(table) and "1.20 &" in as_latex(table)


def test_every_row_fills_its_columns(table):
    """As many separators as the tabular has columns, less one; a heading spans them all."""
    for tabular in re.findall(r"\\begin\{tabular\}\{(l.*?)\}\n(.*?)\\end\{tabular\}", as_latex(table), re.S):
        for line in tabular[1].split("\n"):
            if line.endswith(r"\\"):
                plain = re.sub(r"\\multicolumn\{(\d+)\}", lambda m: "&" * (int(m[1]) - 1), line.replace(r"\&", ""))
                assert plain.count("&") == len(tabular[0]) - 1, line


def test_text_is_escaped_and_ascii(table):
    assert escaped("a_b & 100% \\x") == r"a\_b \& 100\% \textbackslash{}x"
    assert escaped("[1] *") == "{[}1{]} {*}"
    assert escaped("é ω ± 中\n") == r"e $\omega$ $\pm$ ? "
    assert as_latex(table).isascii()


def test_the_papers_number_is_not_taken_for_the_floats(table):
    caption = r"\caption{Main comparison (Table 2 of the paper): Beauty, seen items stay candidates. {[}x"
    assert caption in as_latex(table)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("options", ["", "[twocolumn]"])
def test_it_compiles_without_an_overfull_line(table, tmp_path, options):
    source = rf"\documentclass{options}{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}"
    (tmp_path / "main.tex").write_text(source + "\n" + as_latex(table) + as_latex(table) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "Overfull" not in result.stdout and "Float too large" not in result.stdout
    assert (tmp_path / "main.pdf").is_file()
