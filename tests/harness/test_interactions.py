import gzip
import json
import zipfile

import numpy as np
import pytest

from harness.interactions import CHUNK_ROWS, FORMATS, read_interactions

INTER_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
REVIEW = '{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1400000000, "reviewText": "a\\nb"}\n'

GOOD = {
    "movielens-dat": "7::30::5::100\n7::10::4::90\n2::30::1::90\n",
    "movielens-tab": "7\t30\t5\t100\n7\t10\t4\t90\n2\t30\t1\t90\n",
    "amazon-ratings": "7,30,5.0,100\n7,10,4.0,90\n2,30,1.0,90\n",
    "inter": INTER_HEADER + "7\t30\t5\t100\n7\t10\t4\t90\n2\t30\t1\t90\n",
    "amazon-reviews": "".join(
        json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time}) + "\n"
        for user, item, time in (("7", "30", 100), ("7", "10", 90), ("2", "30", 90))
    ),
    "sequences": "7 30 10\n2 30\n",
}


def read(tmp_path, text, *, format, member=None, name="raw"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_interactions(path, format=format, member=member)


def zipped(tmp_path, members):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())], ids=["plain", "gzip"])
def test_every_format_gives_the_same_interactions(tmp_path, format, pack):
    found = read(tmp_path, pack(GOOD[format]), format=format)
    assert found.user_labels == ["7", "2"] and found.item_labels == ["30", "10"]
    assert found.user_N.tolist() == [0, 0, 1] and found.item_N.tolist() == [0, 1, 0]
    assert found.user_N.dtype == found.item_N.dtype == np.int32
    if format == "sequences":
        assert found.time_N is None
    else:
        assert found.time_N.tolist() == [100, 90, 90]


def test_every_format_is_tested():
    assert GOOD.keys() == FORMATS.keys()


BAD = [
    ("movielens-dat", "1::2::3::4\n1::3::3\n", 2, "wrong number of fields"),
    ("movielens-dat", "1::2::3::4::9\n1::3::3::5\n", 1, "wrong number of fields"),
    ("movielens-dat", "1::2::3::4\n1::3::3::5:\n", 2, "wrong number of fields"),
    ("movielens-dat", "1::2::3::4\n1:x:3::3::5\n", 2, "wrong number of fields"),
    ("movielens-dat", "1::2::3::4\n\n-1::3::3::5\n", 3, "'-1' is not a whole number"),
    ("movielens-tab", "1\t2\t3\t4\n1\t2\t3\t4\t5\n", 2, "wrong number of fields"),
    ("movielens-tab", "1\t2\t3\t4\t5\n1\t2\t3\t4\n", 1, "wrong number of fields"),
    ("movielens-tab", "1\t2\t3\t4\t\n1\t2\t3\t4\n", 1, "wrong number of fields"),
    ("movielens-tab", "1\t2\t3\t4\n1\t2\t3\tnan\n", 2, "'nan' is not a timestamp"),
    ("movielens-tab", "1\t2\t3\t4\n1\t2\t3\tinf\n", 2, "'inf' is not a timestamp"),
    ("movielens-tab", "1\t2\t3\t4\n1\t2\t3\t-4\n", 2, "'-4' is not a timestamp"),
    ("movielens-tab", "1\t2\t3\t4\n1\t2\t3\t\n", 2, "'' is not a timestamp"),
    ("movielens-tab", "1\t2\tgood\t4\n", 1, "'good' is not a number"),
    ("movielens-tab", "1\tabc\t3\t4\n", 1, "'abc' is not a whole number"),
    ("movielens-tab", b"1\t2\t3\t4\n\xff\t2\t3\t4\n", 2, "is not UTF-8 text"),
    ("amazon-ratings", "A,NA,5.0,4\nA,,5.0,4\n", 2, "'' is not an id"),
    ("amazon-ratings", "A,B,5.0,4\n,B,5.0,4\n", 2, "'' is not an id"),
    ("amazon-ratings", "A,B,5.0,4\nA,B\n", 2, "wrong number of fields"),
    ("amazon-ratings", "user,item,rating,timestamp\nA,B,5.0,4\n", 1, "remove the header line"),
    ("inter", INTER_HEADER + "1\t2\t3\t4\n1\t2\t3\n", 3, "wrong number of fields"),
    ("inter", INTER_HEADER + "1\t2\t3\tx\n", 2, "'x' is not a timestamp"),
    ("inter", "user_id:token\titem_id:token\n1\t2\n", 1, "timestamp:float"),
    ("inter", "1\t2\t3\t4\n", 1, "user_id:token"),
    ("amazon-reviews", REVIEW + "{\n", 2, "JSON object"),
    ("amazon-reviews", REVIEW + "[1]\n", 2, "JSON object"),
    ("amazon-reviews", REVIEW + '{"reviewerID": "A", "asin": "B"}\n', 2, "unixReviewTime"),
    ("amazon-reviews", REVIEW.replace("1400000000", "NaN"), 1, "unixReviewTime"),
    ("amazon-reviews", REVIEW.replace("1400000000", "null"), 1, "unixReviewTime"),
    ("amazon-reviews", REVIEW.replace("A1", "A\\nB"), 1, "reviewerID"),
    ("sequences", "1 2 3\n2 x\n", 2, "whole numbers"),
    ("sequences", "1 2 3\n2 0\n", 2, "whole numbers from 1"),
    ("sequences", "1 2 3\n\n2\n", 3, "user item item"),
    ("sequences", "1 2 3\n1 2\n", 2, "user 1 comes again"),
]


@pytest.mark.parametrize(("format", "text", "line", "reason"), BAD)
def test_malformed_line_is_named(tmp_path, format, text, line, reason):
    with pytest.raises(ValueError, match=rf"raw, line {line}: ") as caught:
        read(tmp_path, text, format=format)
    assert reason in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_file_is_an_error(tmp_path, format, text):
    with pytest.raises(ValueError, match="raw"):
        read(tmp_path, text, format=format)


def test_header_without_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no interactions"):
        read(tmp_path, INTER_HEADER, format="inter")


def test_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'movielens-dat'"):
        read(tmp_path, "x", format="movielens_dat")


def test_labels_are_kept_as_written(tmp_path):
    """Text that a table reader might take for a missing value, a number or a quotation stays what it is."""
    found = read(tmp_path, '\ufeffA,NA,5,1\nnull,"B,5,1\n007,7,5,1\n7,1e5,5,1\n', format="amazon-ratings")
    assert found.user_labels == ["A", "null", "007", "7"]
    assert found.item_labels == ["NA", '"B', "7", "1e5"]


def test_windows_line_ends_are_accepted(tmp_path):
    found = read(tmp_path, GOOD["movielens-tab"].replace("\n", "\r\n"), format="movielens-tab")
    assert found.item_labels == ["30", "10"] and found.time_N.tolist() == [100, 90, 90]


def test_inter_columns_are_found_by_name(tmp_path):
    text = "timestamp:float\tage:float\titem_id:token\tuser_id:token\n5\t\tx\ty\n"
    found = read(tmp_path, text, format="inter")
    assert (found.user_labels, found.item_labels, found.time_N.tolist()) == (["y"], ["x"], [5.0])


def test_codes_continue_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.interactions.CHUNK_ROWS", 7)
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 20, size=(100, 2)).tolist()
    found = read(tmp_path, "".join(f"u{u},i{i},1,0\n" for u, i in pairs), format="amazon-ratings")
    users, items = np.array(found.user_labels), np.array(found.item_labels)
    assert [list(pair) for pair in zip(users[found.user_N], items[found.item_N], strict=True)] == [
        [f"u{u}", f"i{i}"] for u, i in pairs
    ]
    assert found.user_labels == list(dict.fromkeys(f"u{u}" for u, _ in pairs))
    assert CHUNK_ROWS >= 10**6  # small chunks would be slow


def test_zip_member_is_read_in_place(tmp_path):
    path = zipped(tmp_path, {"ml-100k/u.data": GOOD["movielens-tab"], "ml-100k/README": "x"})
    found = read_interactions(path, format="movielens-tab", member="ml-100k/u.data")
    assert len(found) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["raw.zip"]


@pytest.mark.parametrize("member", ["../u.data", "/etc/passwd", "a/../../u.data", "a\\u.data", ""])
def test_unsafe_member_names_are_refused(tmp_path, member):
    path = zipped(tmp_path, {"../u.data": "1\t2\t3\t4\n"})
    with pytest.raises(ValueError, match="must be a relative path"):
        read_interactions(path, format="movielens-tab", member=member)


def test_absent_member_and_forgotten_member_are_named(tmp_path):
    path = zipped(tmp_path, {"u.data": "1\t2\t3\t4\n"})
    with pytest.raises(ValueError, match=r"no member 'u.dat'; it begins with u.data"):
        read_interactions(path, format="movielens-tab", member="u.dat")
    with pytest.raises(ValueError, match="needs the key 'member'"):
        read_interactions(path, format="movielens-tab")


def test_member_of_announced_monstrous_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.archive.MAX_MEMBER_BYTES", 10)
    path = zipped(tmp_path, {"u.data": GOOD["movielens-tab"]})
    with pytest.raises(ValueError, match="announces 31 bytes, limit 10"):
        read_interactions(path, format="movielens-tab", member="u.data")


@pytest.mark.parametrize("format", ["movielens-tab", "amazon-reviews"])
def test_truncated_gzip_is_an_error(tmp_path, format):
    packed = gzip.compress((GOOD[format] * 50).encode())
    with pytest.raises(ValueError, match="damaged or truncated"):
        read(tmp_path, packed[:-12], format=format)


def test_damaged_zip_is_an_error(tmp_path):
    path = zipped(tmp_path, {"u.data": "\n".join(f"{n}\t{n * 7}\t3\t4" for n in range(5000))})
    data = bytearray(path.read_bytes())
    for damaged in (bytes(data[:-30]), bytes(data[:2000] + b"\0\0\0\0" + data[2004:])):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or truncated"):
            read_interactions(path, format="movielens-tab", member="u.data")
