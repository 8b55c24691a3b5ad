import pytest

from analysis.audit.long_format import read_table

HEADER = "dataset,metric,model,value"


@pytest.fixture
def read(tmp_path):
    def read(*lines, header=HEADER):
        path = tmp_path / "table.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return read_table(path)

    return read


GOOD = ("D,HR@10,A,8.10", "D,NDCG@10,A,4.10", "D,HR@10,B,7.10", "D,NDCG@10,B,3.10")


def test_reads_cells_in_percent_with_their_lines(read):
    table = read("# a comment", *GOOD)
    assert [cell.line for cell in table.cells] == [3, 4, 5, 6]
    assert table.cells[0].value == 8.1


def test_fractions_with_a_unit_become_percent(read):
    table = read("D,HR@10,A,0.0810,fraction", header=HEADER + ",unit")
    assert table.cells[0].value == pytest.approx(8.1)
    assert table.cells[0].interval.hi == pytest.approx(8.105)


def test_small_percentages_are_percentages_if_they_say_so(read):
    table = read("D,HR@5,A,0.41,percent", "D,HR@5,B,0.37,percent", header=HEADER + ",unit")
    assert [cell.value for cell in table.cells] == [0.41, 0.37]


def test_other_names_of_metrics_are_one_metric(read):
    assert {cell.metric for cell in read("D,Recall@10,A,8.1", "D,hit@5,A,4.1").cells} == {"HR@10", "HR@5"}


def test_optional_columns(read):
    table = read(
        "D,HR@10,A,8.1,0.2,5,<0.01,12.5%,943",
        "D,HR@10,B,7.2,,,,,",
        header=HEADER + ",std,n,p,claimed_improvement,users",
    )
    cell = table.cells[0]
    assert (float(cell.std), cell.n, cell.p.is_upper_bound, float(cell.improvement)) == (0.2, 5, True, 12.5)
    assert table.users == {"D": 943}


def test_declared_absence_is_accepted(read):
    assert len(read(*GOOD[:3], "D,NDCG@10,B,-").cells) == 3


MALFORMED = {
    "unknown column": (HEADER + ",stdev", (), "line 1: column 'stdev' is unknown; legal columns"),
    "missing column": ("dataset,metric,model", ("D,HR@10,A",), "line 1: column 'value' is missing"),
    "column twice": (HEADER + ",model", ("D,HR@10,A,8.1,A",), "named twice"),
    "no rows": (HEADER, (), "no rows"),
    "text in a number": (HEADER, ("D,HR@10,A,8.1", "D,HR@10,B,eight"), "line 3: value: 'eight' is not a number"),
    "decimal comma": (HEADER, ("D,HR@10,A,8,1",), "line 2: has 5 fields where the header has 4"),
    "empty value": (HEADER, ("D,HR@10,A,",), "line 2: value is empty"),
    "empty model": (HEADER, ("D,HR@10,,8.1",), "line 2: model is empty"),
    "duplicate cell": (HEADER, (*GOOD, "D,HR@10,A,8.10"), "line 6: D HR@10 A was given on line 2 already"),
    "duplicate under another name": (HEADER, ("D,HR@10,A,8.1", "D,Hit@10,A,8.1"), "line 3: .*already"),
    "missing cell": (HEADER, GOOD[:3], "line 4: B on D has no NDCG@10"),
    "fractions everywhere": (HEADER, ("D,HR@10,A,0.081", "D,HR@10,B,0.071"), "line 2: .*fraction.*multiply by 100"),
    "fractions in one row": (HEADER, (*GOOD, "D,HR@10,C,0.0750", "D,NDCG@10,C,0.0350"), "line 6: .*fraction"),
    "one fraction": (HEADER, (*GOOD[:3], "D,NDCG@10,B,0.0310"), "line 5: .*fraction"),
    "one fraction in a table of one row": (HEADER, ("D,HR@10,A,8.1", "D,NDCG@10,A,0.041"), "line 3: .*fraction"),
    "more than all": (HEADER, ("D,HR@10,A,810",), "line 2: HR@10 810 is outside 0 to 100 percent"),
    "metric without at": (HEADER, ("D,HR10,A,8.1",), "line 2: metric 'HR10' is not understood; write it as HR@10"),
    "unit": (HEADER + ",unit", ("D,HR@10,A,8.1,promille",), "line 2: unit 'promille' is unknown; legal units"),
    "percent called fraction": (HEADER + ",unit", ("D,HR@10,A,8.1,fraction",), "outside 0 to 1 fraction"),
    "runs": (HEADER + ",n", ("D,HR@10,A,8.1,five",), "line 2: n 'five' is not a whole number"),
    "p above one": (HEADER + ",p", ("D,HR@10,A,8.1,5",), "line 2: p 5 is outside 0 to 1"),
    "negative std": (HEADER + ",std", ("D,HR@10,A,8.1,-1",), "line 2: std -1 is negative"),
    "two user counts": (HEADER + ",users", ("D,HR@10,A,8.1,943", "D,HR@10,B,7.1,944"), "line 3: users 944"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_name_the_line_and_the_remedy(read, name):
    header, lines, message = MALFORMED[name]
    with pytest.raises(ValueError, match=message):
        read(*lines, header=header)


def test_weak_models_are_not_taken_for_fractions(read):
    assert len(read("D,HR@10,A,18.0", "D,HR@10,B,16.0", "D,HR@10,C,0.89").cells) == 3
    assert len(read("D,HR@5,A,0.81", "D,HR@10,A,1.20", "D,NDCG@5,A,0.43", "D,NDCG@10,A,0.55").cells) == 4


def test_an_infeasible_value_is_left_to_the_audit(read):
    # 0.5 is too small for NDCG@10 beside HR@10 = 20, and 50 would be too large: no fraction, but a finding.
    assert len(read("D,HR@10,A,20.0", "D,NDCG@10,A,0.5").cells) == 2


def test_empty_and_absent_files(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="is empty; the first line must be dataset,metric,model,value"):
        read_table(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_table(tmp_path / "binary.csv")
