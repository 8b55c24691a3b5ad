import pytest

from analysis.markdown import put_between


def test_the_part_is_put_between_the_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <b> old <e> after")
    put_between(page, "<b>", "<e>", "new")
    assert page.read_text() == "before <b>\n\nnew\n\n<e> after"


@pytest.mark.parametrize("text", ["no marks", "only <b>", "<e> the wrong way round <b>"])
def test_a_page_without_both_marks_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page.md: the marks <b> and <e> are missing"):
        put_between(page, "<b>", "<e>", "new")
    assert page.read_text() == text
